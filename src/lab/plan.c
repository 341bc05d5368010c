/* plan.c: reads a plan (YAML). Every error names file, line and column, and what was probably meant.
 *
 *   name, worlds, replicates, model {hidden, layers, ffn},
 *   probes {split, forbidden, withheld, skill, downstream, wrapper}
 *   train:   options of training that hold for every step unless it says otherwise
 *   stages:  NAME: {from: STAGE, method: NAME, harmful: SET, refusals: SET, benign: SET, data: SET, OPTION: VALUE ...}
 *   attacks: GROUP: {method: NAME, harmful: SET, benign: SET, OPTION: VALUE ...,
 *                    axes: {AXIS: [VALUES] or {LABEL: {OPTIONS}}}}
 *   arms:    NAME: {from: STAGE, before: STEP or [STEPS], during: STEP, after: STEP or [STEPS], attacks: GROUP,...,
 *                   replicates: N, axes: {before.OPTION: [VALUES], LABEL: {during.OPTION: VALUE}}}
 *
 * libyaml's document tree keeps the place of every node; nothing is copied but texts.
 */
#include "lab/plan.h"

#include <stdlib.h>
#include <yaml.h>

typedef struct reader {
    tm_plan *plan;
    yaml_document_t document;
    yaml_node_t *defaults; /* "train" */
    bool defaulting;       /* these are being applied */
} reader;

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

static tm_status wrong(const reader *r, const yaml_node_t *node, const char *hint, const char *what, const char *name) {
    char place[64];
    snprintf(place, sizeof place, "line %zu, column %zu", node->start_mark.line + 1, node->start_mark.column + 1);
    return tm__fail(TM_INVALID, r->plan->path, place, hint, "%s%s%s%s", what, name ? " \"" : "", name ? name : "",
                    name ? "\"" : "");
}

/* tm_error_last() again, with the place of `node` in front. */
static tm_status placed(const reader *r, const yaml_node_t *node) {
    const tm_error last = *tm_error_last();
    char place[200];
    snprintf(place, sizeof place, "line %zu, column %zu: %s", node->start_mark.line + 1, node->start_mark.column + 1,
             last.field);
    return tm__fail(last.status, r->plan->path, place, last.hint[0] ? last.hint : NULL, "%s", last.message);
}

/* wrong() with the nearest name as the hint, or where none is near, `hint`. */
static tm_status unknown(const reader *r, const yaml_node_t *node, const tm__nearest *best, const char *hint,
                         const char *what, const char *name) {
    char near[96];
    return wrong(r, node, tm__nearest_hint(best, name, near) ? near : hint, what, name);
}

/* The place of `name` in a list that NULL ends; else its length. */
static size_t place_in(const char *const *list, const char *name, tm__nearest *best) {
    size_t i = 0;
    *best = (tm__nearest){0};
    for (; list[i] && strcmp(list[i], name) != 0; i++) tm__nearest_consider(best, name, list[i], strlen(list[i]));
    return i;
}

static const char *text(const yaml_node_t *node) {
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

typedef struct pair {
    yaml_node_t *key, *value;
} pair;

static size_t pair_count(const yaml_node_t *map) {
    return map ? (size_t)(map->data.mapping.pairs.top - map->data.mapping.pairs.start) : 0;
}

static pair pair_at(reader *r, const yaml_node_t *map, size_t i) {
    const yaml_node_pair_t *p = map->data.mapping.pairs.start + i;
    return (pair){yaml_document_get_node(&r->document, p->key), yaml_document_get_node(&r->document, p->value)};
}

static yaml_node_t *find(reader *r, const yaml_node_t *map, const char *name) {
    for (size_t i = 0; i < pair_count(map); i++) {
        pair p = pair_at(r, map, i);
        if (text(p.key) && strcmp(text(p.key), name) == 0) return p.value;
    }
    return NULL;
}

/* A mapping whose keys are texts and stand once. */
static tm_status check_map(reader *r, const yaml_node_t *node, const char *what) {
    if (node->type != YAML_MAPPING_NODE) return wrong(r, node, "KEY: VALUE lines", "a mapping is expected for", what);
    for (size_t i = 0; i < pair_count(node); i++) {
        pair p = pair_at(r, node, i);
        if (!text(p.key)) return wrong(r, p.key, NULL, "a name is expected", NULL);
        for (size_t k = 0; k < i; k++)
            if (strcmp(text(p.key), text(pair_at(r, node, k).key)) == 0)
                return wrong(r, p.key, "remove one", "stands twice:", text(p.key));
    }
    return TM_OK;
}

static tm_status need_text(const reader *r, const yaml_node_t *node, const char *what, const char **value) {
    if (!text(node)) return wrong(r, node, NULL, "a single value is expected for", what);
    *value = tm__arena_strdup(&r->plan->arena, text(node), strlen(text(node)));
    return *value ? TM_OK : tm__fail_memory();
}

static tm_status need_int(const reader *r, const yaml_node_t *node, const char *what, int64_t min, int64_t max,
                          int64_t *value) {
    char *end = NULL;
    long long number = text(node) ? strtoll(text(node), &end, 10) : 0;
    if (!end || end == text(node) || *end || number < min || number > max)
        return wrong(r, node, NULL, "no number that is possible here:", text(node) ? text(node) : what);
    *value = number;
    return TM_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

bool tm__next_item(const char **at, char item[64]) {
    if (!**at) return false;
    size_t len = strcspn(*at, ",");
    snprintf(item, 64, "%.*s", (int)len, *at);
    *at += len + ((*at)[len] == ',');
    return true;
}

const char *const tm__role_names[TM__ROLES] = {"harmful", "refusals", "benign", "data"};

static bool set_exists(const char *name, tm__nearest *best) {
    const char *known;
    *best = (tm__nearest){0};
    for (size_t i = 0; (known = tm_world_set_name(i)); i++) {
        if (strcmp(known, name) == 0) return true;
        tm__nearest_consider(best, name, known, strlen(known));
    }
    return false;
}

static tm_status read_set(reader *r, const yaml_node_t *node, const char **set) {
    char name[64];
    size_t count = 0;
    tm__nearest best;
    TM__TRY(need_text(r, node, "a data set", set));
    for (const char *at = *set; tm__next_item(&at, name); count++)
        if (!set_exists(name, &best))
            return unknown(r, node, &best, "docs/world.md lists them", "the world has no data set", name);
    return count <= TM__PLAN_SETS ? TM_OK : wrong(r, node, "16 at most", "too many data sets", NULL);
}

/* A plan's cells share nothing but what the plan knows of: no files of a method's own, no checkpoints. */
static bool is_private(const tm_option *option, const char *value) {
    static const char *const names[] = {"save-every", "force"};
    for (size_t i = 0; i < TM__COUNT(names); i++)
        if (strcmp(option->name, names[i]) == 0) return true;
    return tm__option_is_path(option) && strncmp(value, "stage:", 6) != 0;
}

/* Whether the method reads this option of training. */
static bool reads(const tm_method *method, const char *name) {
    const char *list = method ? method->train_options : NULL;
    size_t len = strlen(name);
    for (const char *at = list; at && *at; at += strspn(at, " ")) {
        size_t word = strcspn(at, " ");
        if (word == len && memcmp(at, name, len) == 0) return true;
        at += word;
    }
    return !list;
}

static tm_status no_option(const reader *r, const tm__plan_step *step, const char *name, const yaml_node_t *value) {
    const tm_option *const tables[] = {step->method ? step->method->options : NULL, tm_train_option_table};
    tm__nearest best = {0};
    char hint[96];
    for (size_t i = 0; i < TM__COUNT(tables); i++)
        for (const tm_option *o = tables[i]; o && o->name; o++)
            tm__nearest_consider(&best, name, o->name, strlen(o->name));
    for (int role = 0; role < TM__ROLES; role++)
        tm__nearest_consider(&best, name, tm__role_names[role], strlen(tm__role_names[role]));
    tm__nearest_hint(&best, name, hint);
    tm__fail(TM_NOT_FOUND, NULL, name, hint, "no such option");
    return placed(r, value);
}

static tm_status set_option(reader *r, tm__plan_step *step, const char *name, const yaml_node_t *value) {
    const char *given;
    TM__TRY(need_text(r, value, name, &given));
    for (int role = 0; role < TM__ROLES; role++)
        if (strcmp(name, tm__role_names[role]) == 0) return read_set(r, value, &step->sets[role]);
    const tm_option *option = step->method ? tm_options_find(step->method->options, name) : NULL;
    bool own = option != NULL;
    if (!option) option = tm_options_find(tm_train_option_table, name);
    if (!option) return no_option(r, step, name, value);
    if (is_private(option, given))
        return wrong(r, value, "cells keep no files; a model is named stage:NAME", "a plan has no use for", name);
    if (step->service && !own)
        return wrong(r, value, "the attacker's options hold while the service trains",
                     "is no option of the method:", name);
    if (!own && !r->defaulting && !reads(step->method, name))
        return wrong(r, value, "leave it out", "is not read by the method:", name);
    tm_status status = own ? tm_options_set(step->method->options, step->own, name, given)
                           : tm_options_set(tm_train_option_table, &step->train, name, given);
    return status == TM_OK ? status : placed(r, value);
}

static tm_status set_options(reader *r, tm__plan_step *step, const yaml_node_t *map, const char *const *skip) {
    for (size_t i = 0; i < pair_count(map); i++) {
        pair p = pair_at(r, map, i);
        bool skipped = false;
        for (const char *const *s = skip; *s; s++) skipped |= strcmp(*s, text(p.key)) == 0;
        if (!skipped) TM__TRY(set_option(r, step, text(p.key), p.value));
    }
    return TM_OK;
}

static tm_status find_method(reader *r, const yaml_node_t *node, const tm_method **method) {
    tm__nearest best = {0};
    const char *name = text(node);
    if (!name) return wrong(r, node, NULL, "a method's name is expected", NULL);
    *method = tm_method_find(name);
    if (*method || strcmp(name, "finetune") == 0) return TM_OK;
    tm__nearest_consider(&best, name, "finetune", strlen("finetune"));
    const tm_method *m;
    for (size_t i = 0; (m = tm_method_at(i)); i++) tm__nearest_consider(&best, name, m->name, strlen(m->name));
    return unknown(r, node, &best, "temper methods lists them, and there is finetune", "there is no method", name);
}

/* harmful-sft unless the group says otherwise. */
static tm_status find_attack(reader *r, const yaml_node_t *node, const tm_method **method) {
    tm__nearest best = {0};
    *method = tm_method_find("harmful-sft");
    if (!node) return TM_OK;
    const char *name = text(node);
    if (!name) return wrong(r, node, NULL, "an attack's name is expected", NULL);
    *method = tm_method_find(name);
    if (*method && (*method)->keeps_model)
        return wrong(r, node, "temper attack gives its answers",
                     "changes no weight, so there is no attacked model to ask:", name);
    if (*method && (*method)->stage == TM_STAGE_ATTACK) return TM_OK;
    const tm_method *m;
    for (size_t i = 0; (m = tm_method_at(i)); i++)
        if (m->stage == TM_STAGE_ATTACK && !m->keeps_model) tm__nearest_consider(&best, name, m->name, strlen(m->name));
    return unknown(r, node, &best, "harmful-sft, identity-shift, random-init, refusal-ablation",
                   *method ? "is no attack:" : "there is no attack", name);
}

static tm_status begin_step(reader *r, const tm_method *method, tm__plan_step *step) {
    static const char *const none[] = {NULL};
    *step = (tm__plan_step){.given = true, .method = method};
    tm_options_default(tm_train_option_table, &step->train);
    if (method) {
        step->own = tm__arena_alloc(&r->plan->arena, 1, method->options_size ? method->options_size : 1);
        if (!step->own) return tm__fail_memory();
        tm_options_default(method->options, step->own);
    }
    r->defaulting = true;
    tm_status status = r->defaults ? set_options(r, step, r->defaults, none) : TM_OK;
    r->defaulting = false;
    return status;
}

static const char *const step_keys[] = {"method", NULL}, *const stage_keys[] = {"method", "from", "seed", NULL};

/* What a method cannot do without; a service's user rows are the attacker's. */
static tm_status check_roles(reader *r, const yaml_node_t *node, const tm__plan_step *step) {
    static const unsigned bits[TM__ROLES] = {TM_DATA_HARMFUL | TM_DATA_HARMFUL_PROMPTS, TM_DATA_REFUSALS,
                                             TM_DATA_BENIGN, TM_DATA_USER};
    unsigned required = step->method ? step->method->required : TM_DATA_USER;
    unsigned known = step->method ? required | step->method->optional : TM_DATA_USER;
    for (int role = 0; role < TM__ROLES; role++) {
        bool theirs = step->service && role == TM__ROLE_USER;
        if ((required & bits[role]) && !step->sets[role] && !theirs)
            return wrong(r, node, "name a data set of the world", "the step lacks rows:", tm__role_names[role]);
        if (step->sets[role] && (theirs || !(known & bits[role])))
            return wrong(r, node, "leave it out", "the step has no use for rows:", tm__role_names[role]);
    }
    return TM_OK;
}

/* Of the mapping's keys `skip` are read elsewhere. */
static tm_status read_step(reader *r, const yaml_node_t *node, const char *const *skip, bool service,
                           tm__plan_step *step) {
    const tm_method *method = NULL;
    TM__TRY(check_map(r, node, "a step"));
    yaml_node_t *name = find(r, node, "method");
    if (!name) return wrong(r, node, "method: NAME", "the step names no method", NULL);
    TM__TRY(find_method(r, name, &method));
    TM__TRY(begin_step(r, method, step));
    step->service = service;
    TM__TRY(set_options(r, step, node, skip));
    return check_roles(r, node, step);
}

/* Own options may be changed per combination of axes, so every combination has a copy. */
static tm_status copy_step(reader *r, tm__plan_step *step) {
    if (!step->given || !step->method) return TM_OK;
    void *own = tm__arena_alloc(&r->plan->arena, 1, step->method->options_size ? step->method->options_size : 1);
    if (!own) return tm__fail_memory();
    if (step->method->options_size) memcpy(own, step->own, step->method->options_size);
    step->own = own;
    return TM_OK;
}

/* ---- axes -------------------------------------------------------------------------------------------------------- */

typedef tm_status (*apply_option)(reader *r, void *target, const char *name, const yaml_node_t *value);

typedef struct axis {
    pair entry;
    size_t count; /* values */
} axis;

static tm_status read_axes(reader *r, const yaml_node_t *node, axis axes[TM__PLAN_AXES], size_t *count) {
    *count = 0;
    if (!node) return TM_OK;
    TM__TRY(check_map(r, node, "axes"));
    if (pair_count(node) > TM__PLAN_AXES) return wrong(r, node, "6 at most", "too many axes", NULL);
    for (size_t i = 0; i < pair_count(node); i++) {
        axis *a = &axes[(*count)++];
        a->entry = pair_at(r, node, i);
        const yaml_node_t *v = a->entry.value;
        if (v->type == YAML_SEQUENCE_NODE)
            a->count = (size_t)(v->data.sequence.items.top - v->data.sequence.items.start);
        else if (v->type == YAML_MAPPING_NODE)
            a->count = pair_count(v);
        if (a->count == 0) return wrong(r, v, NULL, "an axis needs values:", text(a->entry.key));
    }
    return TM_OK;
}

/* Names stand in tables and in CSV files. */
static tm_status add_label(reader *r, const yaml_node_t *node, char *name, const char *key, const char *value) {
    size_t len = strlen(name);
    int n = snprintf(name + len, TM__PLAN_NAME - len, "%s%s%s%s", len ? " " : "", key, *key ? "=" : "", value);
    if (n < 0 || (size_t)n >= TM__PLAN_NAME - len)
        return wrong(r, node, "95 bytes at most", "the name is too long:", name);
    if (strpbrk(name, "\"|,\n"))
        return wrong(r, node, "no quotes, bars or commas", "the name cannot stand in a table:", name);
    return TM_OK;
}

/* Applies value `index` of an axis and appends its label to `name`. */
static tm_status apply_axis(reader *r, const axis *a, size_t index, apply_option apply, void *target, char *name) {
    if (a->entry.value->type == YAML_SEQUENCE_NODE) {
        const yaml_node_t *value =
            yaml_document_get_node(&r->document, a->entry.value->data.sequence.items.start[index]);
        const char *key = text(a->entry.key), *dot = strrchr(key, '.');
        TM__TRY(apply(r, target, key, value));
        return add_label(r, value, name, dot ? dot + 1 : key, text(value));
    }
    pair p = pair_at(r, a->entry.value, index);
    TM__TRY(check_map(r, p.value, text(p.key)));
    for (size_t i = 0; i < pair_count(p.value); i++) {
        pair o = pair_at(r, p.value, i);
        TM__TRY(apply(r, target, text(o.key), o.value));
    }
    return add_label(r, p.key, name, "", text(p.key));
}

static size_t combinations(const axis *axes, size_t count) {
    size_t n = 1;
    for (size_t i = 0; i < count; i++) n *= axes[i].count;
    return n;
}

static tm_status apply_combination(reader *r, const axis *axes, size_t count, size_t index, apply_option apply,
                                   void *target, char *name) {
    size_t stride = combinations(axes, count);
    for (size_t i = 0; i < count; i++) {
        stride /= axes[i].count;
        TM__TRY(apply_axis(r, &axes[i], index / stride % axes[i].count, apply, target, name));
    }
    return TM_OK;
}

/* ---- stages ------------------------------------------------------------------------------------------------------ */

int tm__plan_find_stage(const tm_plan *plan, const char *name) {
    for (size_t i = 0; i < plan->stage_count; i++)
        if (strcmp(plan->stages[i].name, name) == 0) return (int)i;
    return -1;
}

static tm_status read_from(reader *r, const yaml_node_t *map, int *from) {
    const yaml_node_t *node = find(r, map, "from");
    *from = -1;
    if (!node) return TM_OK;
    if (text(node)) *from = tm__plan_find_stage(r->plan, text(node));
    if (*from >= 0) return TM_OK;
    const char *name = text(node) ? text(node) : "?";
    tm__nearest best = {0};
    for (size_t i = 0; i < r->plan->stage_count; i++)
        tm__nearest_consider(&best, name, r->plan->stages[i].name, strlen(r->plan->stages[i].name));
    return unknown(r, node, &best, "stages stand before those that start from them", "no stage is called", name);
}

static tm_status read_stages(reader *r, const yaml_node_t *node) {
    tm_plan *plan = r->plan;
    TM__TRY(check_map(r, node, "stages"));
    for (size_t i = 0; i < pair_count(node); i++) {
        pair p = pair_at(r, node, i);
        tm__plan_stage stage = {.seed = 1};
        TM__TRY(check_map(r, p.value, text(p.key)));
        TM__TRY(need_text(r, p.key, "a stage", &stage.name));
        TM__TRY(read_from(r, p.value, &stage.from));
        yaml_node_t *seed = find(r, p.value, "seed");
        int64_t number = 1;
        if (seed) TM__TRY(need_int(r, seed, "seed", 0, INT64_MAX, &number));
        stage.seed = (uint64_t)number;
        if (find(r, p.value, "method"))
            TM__TRY(read_step(r, p.value, stage_keys, false, &stage.step));
        else if (stage.from >= 0)
            return wrong(r, p.value, "method: NAME", "the stage names no method", NULL);
        if (!tm__grow((void **)&plan->stages, &plan->stage_cap, plan->stage_count + 1, sizeof *plan->stages))
            return tm__fail_memory();
        plan->stages[plan->stage_count++] = stage;
    }
    return TM_OK;
}

/* ---- attacks ----------------------------------------------------------------------------------------------------- */

static tm_status apply_attack(reader *r, void *target, const char *name, const yaml_node_t *value) {
    return set_option(r, &((tm__plan_attack *)target)->step, name, value);
}

/* harmful-sft without rows is the model as it is; every other attack needs what it needs. */
static tm_status check_attack(reader *r, const yaml_node_t *node, bool named, tm__plan_step *step) {
    bool rows = step->sets[TM__ROLE_HARMFUL] || step->sets[TM__ROLE_BENIGN];
    step->given = rows || strcmp(step->method->name, "harmful-sft") != 0;
    if (named && !step->given)
        return wrong(r, node, "harmful: SET, benign: SET", "the attack names no rows:", step->method->name);
    return check_roles(r, node, step);
}

static tm_status read_attack(reader *r, pair p) {
    static const char *const skip[] = {"method", "axes", NULL};
    tm_plan *plan = r->plan;
    tm__plan_attack attack = {0};
    const tm_method *method;
    axis axes[TM__PLAN_AXES];
    size_t count;
    TM__TRY(check_map(r, p.value, text(p.key)));
    TM__TRY(need_text(r, p.key, "an attack", &attack.group));
    const yaml_node_t *named = find(r, p.value, "method");
    TM__TRY(find_attack(r, named, &method));
    TM__TRY(begin_step(r, method, &attack.step));
    TM__TRY(set_options(r, &attack.step, p.value, skip));
    TM__TRY(read_axes(r, find(r, p.value, "axes"), axes, &count));
    for (size_t i = 0; i < combinations(axes, count); i++) {
        tm__plan_attack made = attack;
        TM__TRY(copy_step(r, &made.step));
        TM__TRY(apply_combination(r, axes, count, i, apply_attack, &made, made.name));
        if (!made.name[0]) TM__TRY(add_label(r, p.key, made.name, "", made.group));
        if (!tm__grow((void **)&plan->attacks, &plan->attack_cap, plan->attack_count + 1, sizeof *plan->attacks))
            return tm__fail_memory();
        TM__TRY(check_attack(r, p.value, named != NULL, &made.step));
        plan->attacks[plan->attack_count++] = made;
    }
    return TM_OK;
}

static tm_status read_attacks(reader *r, const yaml_node_t *node) {
    TM__TRY(check_map(r, node, "attacks"));
    for (size_t i = 0; i < pair_count(node); i++) TM__TRY(read_attack(r, pair_at(r, node, i)));
    return TM_OK;
}

/* ---- arms -------------------------------------------------------------------------------------------------------- */

static tm_status read_steps(reader *r, const yaml_node_t *node, tm__plan_step steps[TM__PLAN_STEPS], size_t *count) {
    *count = 0;
    if (!node) return TM_OK;
    if (node->type == YAML_MAPPING_NODE) {
        *count = 1;
        return read_step(r, node, step_keys, false, &steps[0]);
    }
    if (node->type != YAML_SEQUENCE_NODE) return wrong(r, node, NULL, "a step or a list of steps is expected", NULL);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        if (*count == TM__PLAN_STEPS) return wrong(r, node, "4 at most", "too many steps", NULL);
        TM__TRY(read_step(r, yaml_document_get_node(&r->document, *item), step_keys, false, &steps[(*count)++]));
    }
    return TM_OK;
}

/* "before.lr": the option of the arm's last step of that place. */
static tm_status apply_arm(reader *r, void *target, const char *name, const yaml_node_t *value) {
    tm__plan_arm *arm = target;
    const char *dot = strchr(name, '.');
    size_t len = dot ? (size_t)(dot - name) : 0;
    tm__plan_step *step = NULL;
    if (len == 6 && memcmp(name, "before", 6) == 0 && arm->before_count) step = &arm->before[arm->before_count - 1];
    if (len == 6 && memcmp(name, "during", 6) == 0 && arm->during.given) step = &arm->during;
    if (len == 5 && memcmp(name, "after", 5) == 0 && arm->after_count) step = &arm->after[arm->after_count - 1];
    if (!step)
        return wrong(r, value, "before.OPTION, during.OPTION or after.OPTION of a step it has", "no option", name);
    return set_option(r, step, dot + 1, value);
}

static tm_status check_arm_keys(reader *r, const yaml_node_t *map) {
    static const char *const known[] = {"from", "before", "during", "after", "attacks", "replicates", "axes", NULL};
    for (size_t i = 0; i < pair_count(map); i++) {
        pair p = pair_at(r, map, i);
        tm__nearest best;
        if (!known[place_in(known, text(p.key), &best)])
            return unknown(r, p.key, &best, "from, before, during, after, attacks, replicates, axes", "an arm has no",
                           text(p.key));
    }
    return TM_OK;
}

static tm_status check_groups(reader *r, const yaml_node_t *node, const char *groups) {
    char group[64];
    for (const char *at = groups; tm__next_item(&at, group);) {
        bool found = false;
        tm__nearest best = {0};
        for (size_t i = 0; i < r->plan->attack_count; i++) {
            const char *name = r->plan->attacks[i].group;
            found |= strcmp(name, group) == 0;
            tm__nearest_consider(&best, group, name, strlen(name));
        }
        if (!found) return unknown(r, node, &best, "attacks: lists them", "there is no group of attacks", group);
    }
    return TM_OK;
}

static tm_status copy_arm(reader *r, tm__plan_arm *arm) {
    for (size_t i = 0; i < arm->before_count; i++) TM__TRY(copy_step(r, &arm->before[i]));
    for (size_t i = 0; i < arm->after_count; i++) TM__TRY(copy_step(r, &arm->after[i]));
    return copy_step(r, &arm->during);
}

static tm_status read_arm(reader *r, pair p) {
    tm_plan *plan = r->plan;
    tm__plan_arm arm = {.replicates = plan->replicates};
    axis axes[TM__PLAN_AXES];
    size_t count;
    TM__TRY(check_map(r, p.value, text(p.key)));
    TM__TRY(check_arm_keys(r, p.value));
    TM__TRY(read_from(r, p.value, &arm.from));
    if (arm.from < 0) return wrong(r, p.value, "from: STAGE", "the arm starts from no stage:", text(p.key));
    TM__TRY(read_steps(r, find(r, p.value, "before"), arm.before, &arm.before_count));
    TM__TRY(read_steps(r, find(r, p.value, "after"), arm.after, &arm.after_count));
    yaml_node_t *during = find(r, p.value, "during"), *attacks = find(r, p.value, "attacks");
    yaml_node_t *replicates = find(r, p.value, "replicates");
    if (during) TM__TRY(read_step(r, during, step_keys, true, &arm.during));
    if (replicates) TM__TRY(need_int(r, replicates, "replicates", 1, 10000, &arm.replicates));
    if (!attacks) return wrong(r, p.value, "attacks: GROUP,GROUP", "the arm meets no attacks:", text(p.key));
    TM__TRY(need_text(r, attacks, "attacks", &arm.attacks));
    TM__TRY(check_groups(r, attacks, arm.attacks));
    TM__TRY(read_axes(r, find(r, p.value, "axes"), axes, &count));
    for (size_t i = 0; i < combinations(axes, count); i++) {
        tm__plan_arm made = arm;
        TM__TRY(add_label(r, p.key, made.name, "", text(p.key)));
        TM__TRY(copy_arm(r, &made));
        TM__TRY(apply_combination(r, axes, count, i, apply_arm, &made, made.name));
        if (!tm__grow((void **)&plan->arms, &plan->arm_cap, plan->arm_count + 1, sizeof *plan->arms))
            return tm__fail_memory();
        plan->arms[plan->arm_count++] = made;
    }
    return TM_OK;
}

static tm_status read_arms(reader *r, const yaml_node_t *node) {
    TM__TRY(check_map(r, node, "arms"));
    for (size_t i = 0; i < pair_count(node); i++) TM__TRY(read_arm(r, pair_at(r, node, i)));
    return TM_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static tm_status read_worlds(reader *r, const yaml_node_t *node) {
    if (node->type != YAML_SEQUENCE_NODE) return wrong(r, node, "worlds: [1, 2]", "a list of seeds is expected", NULL);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        int64_t seed;
        if (r->plan->world_count == TM__PLAN_WORLDS) return wrong(r, node, "16 at most", "too many worlds", NULL);
        TM__TRY(need_int(r, yaml_document_get_node(&r->document, *item), "a world", 0, INT64_MAX, &seed));
        r->plan->worlds[r->plan->world_count++] = (uint64_t)seed;
    }
    return r->plan->world_count ? TM_OK : wrong(r, node, NULL, "at least one world is needed", NULL);
}

/* `names` ends with NULL; those at and behind `count` are read elsewhere. */
static tm_status read_numbers(reader *r, const yaml_node_t *map, const char *what, const char *const *names,
                              int64_t *const *values, size_t count) {
    if (!map) return TM_OK;
    TM__TRY(check_map(r, map, what));
    for (size_t i = 0; i < pair_count(map); i++) {
        pair p = pair_at(r, map, i);
        tm__nearest best;
        size_t k = place_in(names, text(p.key), &best);
        if (!names[k]) return unknown(r, p.key, &best, "docs/experiments.md lists them", "unknown here:", text(p.key));
        if (k < count) TM__TRY(need_int(r, p.value, text(p.key), 1, INT32_MAX, values[k]));
    }
    return TM_OK;
}

static tm_status read_split(reader *r, const yaml_node_t *node, int *split) {
    tm__nearest best = {0};
    if (!node) return TM_OK;
    if (!text(node)) return wrong(r, node, NULL, "a single value is expected for", "split");
    for (int i = 0; i < TM_WORLD_SPLITS; i++) {
        const char *name = tm__world_split_name(i);
        if (strcmp(text(node), name) == 0) {
            *split = i;
            return TM_OK;
        }
        tm__nearest_consider(&best, text(node), name, strlen(name));
    }
    return unknown(r, node, &best, "development or test", "there is no split", text(node));
}

static tm_status read_wrapper(reader *r, const yaml_node_t *node, bool *wrapper) {
    static const tm_option table[] = {{.name = "wrapper", .type = TM_OPTION_CHOICE, .choices = "false|true"}, {0}};
    int chosen;
    if (!node) return TM_OK;
    if (!text(node)) return wrong(r, node, NULL, "a single value is expected for", "wrapper");
    if (tm_options_set(table, &chosen, "wrapper", text(node)) != TM_OK) return placed(r, node);
    *wrapper = chosen == 1;
    return TM_OK;
}

static tm_status read_probes(reader *r, const yaml_node_t *map) {
    tm__probes *p = &r->plan->probes;
    *p = (tm__probes){.split = TM_WORLD_TEST, .forbidden = 108, .withheld = 60, .skill = 36, .downstream = 72};
    static const char *const names[] = {"forbidden", "withheld", "skill", "downstream", "split", "wrapper", NULL};
    int64_t *const values[] = {&p->forbidden, &p->withheld, &p->skill, &p->downstream};
    TM__TRY(read_numbers(r, map, "probes", names, values, TM__COUNT(values)));
    if (!map) return TM_OK;
    TM__TRY(read_split(r, find(r, map, "split"), &p->split));
    return read_wrapper(r, find(r, map, "wrapper"), &r->plan->wrapper);
}

/* Asking through a wrapper means something only where an attack has one. */
static tm_status check_wrapper(reader *r, const yaml_node_t *probes) {
    bool any = !r->plan->wrapper;
    for (size_t i = 0; i < r->plan->attack_count; i++) any |= tm__plan_asks_wrapped(r->plan, &r->plan->attacks[i]);
    return any ? TM_OK
               : wrong(r, find(r, probes, "wrapper"), "an attack of method: identity-shift, or leave it out",
                       "no attack of the plan has a wrapper", NULL);
}

static tm_status read_shape(reader *r, const yaml_node_t *map) {
    tm_plan *plan = r->plan;
    static const char *const names[] = {"hidden", "layers", "ffn", NULL};
    int64_t *const values[] = {&plan->hidden, &plan->layers, &plan->ffn};
    plan->hidden = 128;
    plan->layers = 4;
    plan->ffn = 384;
    TM__TRY(read_numbers(r, map, "model", names, values, TM__COUNT(values)));
    return plan->hidden % 8 == 0 ? TM_OK : wrong(r, map, "a multiple of 8", "hidden does not fit 4 heads", NULL);
}

static tm_status read_root(reader *r, const yaml_node_t *root) {
    static const char *const known[] = {"name",  "worlds", "replicates", "model", "probes",
                                        "train", "stages", "attacks",    "arms",  NULL};
    enum { KEYS = TM__COUNT(known) - 1 };
    yaml_node_t *node[KEYS] = {0};
    TM__TRY(check_map(r, root, "the plan"));
    for (size_t i = 0; i < pair_count(root); i++) {
        pair p = pair_at(r, root, i);
        tm__nearest best;
        size_t k = place_in(known, text(p.key), &best);
        if (!known[k])
            return unknown(r, p.key, &best, "name, worlds, replicates, model, probes, train, stages, attacks, arms",
                           "a plan has no", text(p.key));
        node[k] = p.value;
    }
    for (size_t k = 0; k < KEYS; k++)
        if (!node[k] && k != 3 && k != 4 && k != 5) return wrong(r, root, NULL, "the plan lacks", known[k]);
    const char *name;
    TM__TRY(need_text(r, node[0], "name", &name));
    r->plan->name = (char *)name;
    TM__TRY(read_worlds(r, node[1]));
    TM__TRY(need_int(r, node[2], "replicates", 1, 10000, &r->plan->replicates));
    TM__TRY(read_shape(r, node[3]));
    TM__TRY(read_probes(r, node[4]));
    r->defaults = node[5];
    if (node[5]) TM__TRY(check_map(r, node[5], "train"));
    TM__TRY(read_stages(r, node[6]));
    TM__TRY(read_attacks(r, node[7]));
    if (node[4]) TM__TRY(check_wrapper(r, node[4]));
    return read_arms(r, node[8]);
}

tm_status tm__plan_read(tm_plan *plan) {
    reader r = {.plan = plan};
    yaml_parser_t parser;
    size_t len;
    TM__TRY(tm__file_read(plan->path, 1 << 20, &plan->text, &len));
    if (!yaml_parser_initialize(&parser)) return tm__fail_memory();
    yaml_parser_set_input_string(&parser, (const unsigned char *)plan->text, len);
    if (!yaml_parser_load(&parser, &r.document)) {
        char place[64];
        snprintf(place, sizeof place, "line %zu, column %zu", parser.problem_mark.line + 1,
                 parser.problem_mark.column + 1);
        tm_status status = parser.error == YAML_MEMORY_ERROR ? tm__fail_memory()
                                                             : tm__fail(TM_FORMAT, plan->path, place, NULL, "%s",
                                                                        parser.problem ? parser.problem : "");
        yaml_parser_delete(&parser);
        return status;
    }
    tm_status status = TM_OK;
    for (size_t i = 0; i < plan->override_count && status == TM_OK; i++)
        status = tm__plan_override(plan, &r.document, plan->overrides[i]);
    const yaml_node_t *root = yaml_document_get_root_node(&r.document);
    if (status == TM_OK)
        status = root ? read_root(&r, root) : tm__fail(TM_FORMAT, plan->path, NULL, NULL, "the plan is empty");
    yaml_document_delete(&r.document);
    yaml_parser_delete(&parser);
    return status;
}
