/* plan.c: reads a plan (YAML). Every error names file, line and column, and what was probably meant.
 *
 *   name, worlds, replicates, model {hidden, layers, ffn}, probes {split, forbidden, withheld, skill, downstream}
 *   train:   options of training that hold for every step unless it says otherwise
 *   stages:  NAME: {from: STAGE, method: NAME, harmful: SET, refusals: SET, benign: SET, data: SET, OPTION: VALUE ...}
 *   attacks: GROUP: {harmful: SET, benign: SET, OPTION: VALUE ..., axes: {AXIS: [VALUES] or {LABEL: {OPTIONS}}}}
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

static bool set_exists(const char *name) {
    const char *known;
    for (size_t i = 0; (known = tm_world_set_name(i)); i++)
        if (strcmp(known, name) == 0) return true;
    return false;
}

static tm_status read_set(reader *r, const yaml_node_t *node, const char **set) {
    char name[64];
    size_t count = 0;
    TM__TRY(need_text(r, node, "a data set", set));
    for (const char *at = *set; tm__next_item(&at, name); count++)
        if (!set_exists(name)) return wrong(r, node, "docs/world.md lists them", "the world has no data set", name);
    return count <= TM__PLAN_SETS ? TM_OK : wrong(r, node, "16 at most", "too many data sets", NULL);
}

/* A plan's cells share nothing but what the plan knows of: no files of a method's own, no checkpoints. */
static bool is_private(const tm_option *option, const char *value) {
    static const char *const names[] = {"save-every", "force"};
    for (size_t i = 0; i < TM__COUNT(names); i++)
        if (strcmp(option->name, names[i]) == 0) return true;
    return tm__option_is_path(option) && strncmp(value, "stage:", 6) != 0;
}

static tm_status set_option(reader *r, tm__plan_step *step, const char *name, const yaml_node_t *value) {
    const char *given;
    TM__TRY(need_text(r, value, name, &given));
    for (int role = 0; role < TM__ROLES; role++)
        if (strcmp(name, tm__role_names[role]) == 0) return read_set(r, value, &step->sets[role]);
    const tm_option *option = step->method ? tm_options_find(step->method->options, name) : NULL;
    bool own = option != NULL;
    if (!option) option = tm_options_find(tm_train_option_table, name);
    if (option && is_private(option, given))
        return wrong(r, value, "cells keep no files; a model is named stage:NAME", "a plan has no use for", name);
    if (step->service && !own)
        return wrong(r, value, "the attacker's options hold while the service trains",
                     "is no option of the method:", name);
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
    if (!text(node)) return wrong(r, node, NULL, "a method's name is expected", NULL);
    *method = strcmp(text(node), "finetune") == 0 ? NULL : tm_method_find(text(node));
    if (*method || strcmp(text(node), "finetune") == 0) return TM_OK;
    return wrong(r, node, "temper methods lists them, and there is finetune", "there is no method", text(node));
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
    return r->defaults ? set_options(r, step, r->defaults, none) : TM_OK;
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
    return wrong(r, node, "stages stand before those that start from them", "no stage is called",
                 text(node) ? text(node) : "?");
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

static tm_status read_attack(reader *r, pair p) {
    static const char *const skip[] = {"axes", NULL};
    tm_plan *plan = r->plan;
    tm__plan_attack attack = {0};
    axis axes[TM__PLAN_AXES];
    size_t count;
    TM__TRY(check_map(r, p.value, text(p.key)));
    TM__TRY(need_text(r, p.key, "an attack", &attack.group));
    TM__TRY(begin_step(r, tm_method_find("harmful-sft"), &attack.step));
    TM__TRY(set_options(r, &attack.step, p.value, skip));
    TM__TRY(read_axes(r, find(r, p.value, "axes"), axes, &count));
    for (size_t i = 0; i < combinations(axes, count); i++) {
        tm__plan_attack made = attack;
        TM__TRY(copy_step(r, &made.step));
        TM__TRY(apply_combination(r, axes, count, i, apply_attack, &made, made.name));
        if (!made.name[0]) TM__TRY(add_label(r, p.key, made.name, "", made.group));
        if (!tm__grow((void **)&plan->attacks, &plan->attack_cap, plan->attack_count + 1, sizeof *plan->attacks))
            return tm__fail_memory();
        if (made.step.sets[TM__ROLE_REFUSALS] || made.step.sets[TM__ROLE_USER])
            return wrong(r, p.value, "harmful, benign", "an attack reads no refusals and no data:", made.group);
        made.step.given = made.step.sets[TM__ROLE_HARMFUL] || made.step.sets[TM__ROLE_BENIGN];
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
    static const char *const known[] = {"from", "before", "during", "after", "attacks", "replicates", "axes"};
    for (size_t i = 0; i < pair_count(map); i++) {
        pair p = pair_at(r, map, i);
        bool found = false;
        for (size_t k = 0; k < TM__COUNT(known); k++) found |= strcmp(known[k], text(p.key)) == 0;
        if (!found)
            return wrong(r, p.key, "from, before, during, after, attacks, replicates, axes", "an arm has no",
                         text(p.key));
    }
    return TM_OK;
}

static tm_status check_groups(reader *r, const yaml_node_t *node, const char *groups) {
    char group[64];
    for (const char *at = groups; tm__next_item(&at, group);) {
        bool found = false;
        for (size_t i = 0; i < r->plan->attack_count; i++) found |= strcmp(r->plan->attacks[i].group, group) == 0;
        if (!found) return wrong(r, node, "attacks: lists them", "there is no group of attacks", group);
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

static tm_status read_numbers(reader *r, const yaml_node_t *map, const char *what, const char *const *names,
                              int64_t *const *values) {
    if (!map) return TM_OK;
    TM__TRY(check_map(r, map, what));
    for (size_t i = 0; i < pair_count(map); i++) {
        pair p = pair_at(r, map, i);
        size_t k = 0;
        while (names[k] && strcmp(names[k], text(p.key)) != 0) k++;
        if (names[k]) TM__TRY(need_int(r, p.value, text(p.key), 1, INT32_MAX, values[k]));
        if (!names[k] && strcmp(text(p.key), "split") != 0) return wrong(r, p.key, NULL, "unknown here:", text(p.key));
    }
    return TM_OK;
}

static tm_status read_probes(reader *r, const yaml_node_t *map) {
    tm__probes *p = &r->plan->probes;
    *p = (tm__probes){.split = TM_WORLD_TEST, .forbidden = 108, .withheld = 60, .skill = 36, .downstream = 72};
    static const char *const names[] = {"forbidden", "withheld", "skill", "downstream", NULL};
    int64_t *const values[] = {&p->forbidden, &p->withheld, &p->skill, &p->downstream};
    TM__TRY(read_numbers(r, map, "probes", names, values));
    const yaml_node_t *split = map ? find(r, map, "split") : NULL;
    for (int i = 0; split && text(split) && i < TM_WORLD_SPLITS; i++)
        if (strcmp(text(split), tm__world_split_name(i)) == 0) {
            p->split = i;
            return TM_OK;
        }
    return split ? wrong(r, split, "development or test", "there is no split", text(split)) : TM_OK;
}

static tm_status read_shape(reader *r, const yaml_node_t *map) {
    tm_plan *plan = r->plan;
    static const char *const names[] = {"hidden", "layers", "ffn", NULL};
    int64_t *const values[] = {&plan->hidden, &plan->layers, &plan->ffn};
    plan->hidden = 128;
    plan->layers = 4;
    plan->ffn = 384;
    TM__TRY(read_numbers(r, map, "model", names, values));
    return plan->hidden % 8 == 0 ? TM_OK : wrong(r, map, "a multiple of 8", "hidden does not fit 4 heads", NULL);
}

static tm_status read_root(reader *r, const yaml_node_t *root) {
    static const char *const known[] = {"name",  "worlds", "replicates", "model", "probes",
                                        "train", "stages", "attacks",    "arms"};
    yaml_node_t *node[TM__COUNT(known)] = {0};
    TM__TRY(check_map(r, root, "the plan"));
    for (size_t i = 0; i < pair_count(root); i++) {
        pair p = pair_at(r, root, i);
        size_t k = 0;
        while (k < TM__COUNT(known) && strcmp(known[k], text(p.key)) != 0) k++;
        if (k == TM__COUNT(known))
            return wrong(r, p.key, "name, worlds, replicates, model, probes, train, stages, attacks, arms",
                         "a plan has no", text(p.key));
        node[k] = p.value;
    }
    for (size_t k = 0; k < TM__COUNT(known); k++)
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
    const yaml_node_t *root = yaml_document_get_root_node(&r.document);
    tm_status status = root ? read_root(&r, root) : tm__fail(TM_FORMAT, plan->path, NULL, NULL, "the plan is empty");
    yaml_document_delete(&r.document);
    yaml_parser_delete(&parser);
    return status;
}
