/* plan_steps.c: steps of a plan (a method, its data by role, its options), and axes that vary them.
 */
#include "lab/plan_read.h"

/* ---- steps ------------------------------------------------------------------------------------------------------- */

bool tm__next_item(const char **at, char item[64]) {
    if (!**at) return false;
    size_t len = strcspn(*at, ",");
    snprintf(item, 64, "%.*s", (int)len, *at);
    *at += len + ((*at)[len] == ',');
    return true;
}

const char *const tm__role_names[TM__ROLES] = {"harmful", "refusals", "benign", "data"};

static bool set_exists(const tm_plan *plan, const char *name, tm__nearest *best) {
    const char *known;
    *best = (tm__nearest){0};
    for (size_t i = 0; i < plan->data_count; i++) {
        if (strcmp(plan->data[i].name, name) == 0) return true;
        tm__nearest_consider(best, name, plan->data[i].name, strlen(plan->data[i].name));
    }
    for (size_t i = 0; plan->world_count && (known = tm_world_set_name(i)); i++) {
        if (strcmp(known, name) == 0) return true;
        tm__nearest_consider(best, name, known, strlen(known));
    }
    return false;
}

static tm_status read_set(tm__reader *r, const yaml_node_t *node, const char **set) {
    char name[64];
    size_t count = 0;
    tm__nearest best;
    TM__TRY(tm__node_string(r, node, "a data set", set));
    for (const char *at = *set; tm__next_item(&at, name); count++)
        if (!set_exists(r->plan, name, &best))
            return r->plan->world_count
                       ? tm__plan_unknown(r, node, &best, "docs/world.md lists them", "the world has no data set", name)
                       : tm__plan_unknown(r, node, &best, "data: lists them", "there is no data set", name);
    if (count == 0) return tm__plan_wrong(r, node, "leave it out, or name one", "no data set is named", NULL);
    return count <= TM__PLAN_SETS ? TM_OK : tm__plan_wrong(r, node, "16 at most", "too many data sets", NULL);
}

/* A directory that the method reads. */
static bool is_model(const tm_option *option) {
    return tm__option_is_path(option) && strcmp(option->unit, "DIR") == 0 && strcmp(option->name, "resume") != 0;
}

/* A plan's cells share nothing but what the plan knows of: no files of a method's own, no checkpoints. */
static bool is_private(const tm_option *option, const char *value) {
    static const char *const names[] = {"save-every", "force"};
    for (size_t i = 0; i < TM__COUNT(names); i++)
        if (strcmp(option->name, names[i]) == 0) return true;
    return tm__option_is_path(option) && strncmp(value, "stage:", 6) != 0 && !is_model(option);
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

static tm_status no_option(const tm__reader *r, const tm__plan_step *step, const char *name, const yaml_node_t *value) {
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
    return tm__plan_placed(r, value);
}

tm_status tm__step_option(tm__reader *r, tm__plan_step *step, const char *name, const yaml_node_t *value) {
    const char *given;
    TM__TRY(tm__node_string(r, value, name, &given));
    for (int role = 0; role < TM__ROLES; role++)
        if (strcmp(name, tm__role_names[role]) == 0) return read_set(r, value, &step->sets[role]);
    const tm_option *option = step->method ? tm_options_find(step->method->options, name) : NULL;
    bool own = option != NULL;
    if (!option) option = tm_options_find(tm_train_option_table, name);
    if (!option) return no_option(r, step, name, value);
    if (is_private(option, given))
        return tm__plan_wrong(r, value, "cells keep no files; a model is named stage:NAME", "a plan has no use for",
                              name);
    if (step->service && !own)
        return tm__plan_wrong(r, value, "the attacker's options hold while the service trains",
                              "is no option of the method:", name);
    if (!own && !r->defaulting && !reads(step->method, name))
        return tm__plan_wrong(r, value, "leave it out", "is not read by the method:", name);
    if (own && is_model(option) && strncmp(given, "stage:", 6) != 0) TM__TRY(tm__node_path(r, value, name, &given));
    tm_status status = own ? tm_options_set(step->method->options, step->own, name, given)
                           : tm_options_set(tm_train_option_table, &step->train, name, given);
    return status == TM_OK ? status : tm__plan_placed(r, value);
}

tm_status tm__step_options(tm__reader *r, tm__plan_step *step, const yaml_node_t *map, const char *const *skip) {
    for (size_t i = 0; i < tm__node_pairs(map); i++) {
        tm__pair p = tm__node_pair(r, map, i);
        bool skipped = false;
        for (const char *const *s = skip; *s; s++) skipped |= strcmp(*s, tm__node_text(p.key)) == 0;
        if (!skipped) TM__TRY(tm__step_option(r, step, tm__node_text(p.key), p.value));
    }
    return TM_OK;
}

static tm_status find_method(tm__reader *r, const yaml_node_t *node, const tm_method **method) {
    tm__nearest best = {0};
    const char *name = tm__node_text(node);
    if (!name) return tm__plan_wrong(r, node, NULL, "a method's name is expected", NULL);
    *method = tm_method_find(name);
    if (*method || strcmp(name, "finetune") == 0) return TM_OK;
    tm__nearest_consider(&best, name, "finetune", strlen("finetune"));
    const tm_method *m;
    for (size_t i = 0; (m = tm_method_at(i)); i++) tm__nearest_consider(&best, name, m->name, strlen(m->name));
    return tm__plan_unknown(r, node, &best, "temper methods lists them, and there is finetune", "there is no method",
                            name);
}

tm_status tm__attack_method(tm__reader *r, const yaml_node_t *node, const tm_method **method) {
    tm__nearest best = {0};
    *method = tm_method_find("harmful-sft");
    if (!node) return TM_OK;
    const char *name = tm__node_text(node);
    if (!name) return tm__plan_wrong(r, node, NULL, "an attack's name is expected", NULL);
    *method = tm_method_find(name);
    if (*method && (*method)->keeps_model)
        return tm__plan_wrong(r, node, "temper attack gives its answers",
                              "changes no weight, so there is no attacked model to ask:", name);
    if (*method && (*method)->stage == TM_STAGE_ATTACK) return TM_OK;
    const tm_method *m;
    for (size_t i = 0; (m = tm_method_at(i)); i++)
        if (m->stage == TM_STAGE_ATTACK && !m->keeps_model) tm__nearest_consider(&best, name, m->name, strlen(m->name));
    return tm__plan_unknown(r, node, &best, "harmful-sft, identity-shift, random-init, refusal-ablation",
                            *method ? "is no attack:" : "there is no attack", name);
}

tm_status tm__step_begin(tm__reader *r, const tm_method *method, tm__plan_step *step) {
    static const char *const none[] = {NULL};
    *step = (tm__plan_step){.given = true, .method = method};
    tm_options_default(tm_train_option_table, &step->train);
    if (method) {
        step->own = tm__arena_alloc(&r->plan->arena, 1, method->options_size ? method->options_size : 1);
        if (!step->own) return tm__fail_memory();
        tm_options_default(method->options, step->own);
    }
    r->defaulting = true;
    tm_status status = r->defaults ? tm__step_options(r, step, r->defaults, none) : TM_OK;
    r->defaulting = false;
    return status;
}

tm_status tm__step_roles(tm__reader *r, const yaml_node_t *node, const tm__plan_step *step) {
    static const unsigned bits[TM__ROLES] = {TM_DATA_HARMFUL | TM_DATA_HARMFUL_PROMPTS, TM_DATA_REFUSALS,
                                             TM_DATA_BENIGN, TM_DATA_USER};
    unsigned required = step->method ? step->method->required : TM_DATA_USER;
    unsigned known = step->method ? required | step->method->optional : TM_DATA_USER;
    for (int role = 0; role < TM__ROLES; role++) {
        bool theirs = step->service && role == TM__ROLE_USER;
        if ((required & bits[role]) && !step->sets[role] && !theirs)
            return tm__plan_wrong(r, node, r->plan->world_count ? "name a data set of the world" : "name a data set",
                                  "the step lacks rows:", tm__role_names[role]);
        if (step->sets[role] && (theirs || !(known & bits[role])))
            return tm__plan_wrong(r, node, "leave it out", "the step has no use for rows:", tm__role_names[role]);
    }
    return TM_OK;
}

tm_status tm__step_read(tm__reader *r, const yaml_node_t *node, const char *const *skip, bool service,
                        tm__plan_step *step) {
    const tm_method *method = NULL;
    TM__TRY(tm__node_map(r, node, "a step"));
    yaml_node_t *name = tm__node_find(r, node, "method");
    if (!name) return tm__plan_wrong(r, node, "method: NAME", "the step names no method", NULL);
    TM__TRY(find_method(r, name, &method));
    TM__TRY(tm__step_begin(r, method, step));
    step->service = service;
    TM__TRY(tm__step_options(r, step, node, skip));
    return tm__step_roles(r, node, step);
}

tm_status tm__step_copy(tm__reader *r, tm__plan_step *step) {
    if (!step->given || !step->method) return TM_OK;
    void *own = tm__arena_alloc(&r->plan->arena, 1, step->method->options_size ? step->method->options_size : 1);
    if (!own) return tm__fail_memory();
    if (step->method->options_size) memcpy(own, step->own, step->method->options_size);
    step->own = own;
    return TM_OK;
}

tm_status tm__attack_check(tm__reader *r, const yaml_node_t *node, bool named, tm__plan_step *step) {
    bool rows = step->sets[TM__ROLE_HARMFUL] || step->sets[TM__ROLE_BENIGN];
    step->given = rows || strcmp(step->method->name, "harmful-sft") != 0;
    if (named && !step->given)
        return tm__plan_wrong(r, node, "harmful: SET, benign: SET", "the attack names no rows:", step->method->name);
    return tm__step_roles(r, node, step);
}

tm_status tm__arm_option(tm__reader *r, void *target, const char *name, const yaml_node_t *value) {
    tm__plan_arm *arm = target;
    const char *dot = strchr(name, '.');
    size_t len = dot ? (size_t)(dot - name) : 0;
    tm__plan_step *step = NULL;
    if (len == 6 && memcmp(name, "before", 6) == 0 && arm->before_count) step = &arm->before[arm->before_count - 1];
    if (len == 6 && memcmp(name, "during", 6) == 0 && arm->during.given) step = &arm->during;
    if (len == 5 && memcmp(name, "after", 5) == 0 && arm->after_count) step = &arm->after[arm->after_count - 1];
    if (!step)
        return tm__plan_wrong(r, value, "before.OPTION, during.OPTION or after.OPTION of a step it has", "no option",
                              name);
    return tm__step_option(r, step, dot + 1, value);
}

/* ---- axes -------------------------------------------------------------------------------------------------------- */

tm_status tm__axes_read(tm__reader *r, const yaml_node_t *node, tm__axis axes[TM__PLAN_AXES], size_t *count) {
    size_t all = 1;
    *count = 0;
    if (!node) return TM_OK;
    TM__TRY(tm__node_map(r, node, "axes"));
    if (tm__node_pairs(node) > TM__PLAN_AXES) return tm__plan_wrong(r, node, "6 at most", "too many axes", NULL);
    for (size_t i = 0; i < tm__node_pairs(node); i++) {
        tm__axis *a = &axes[(*count)++];
        a->entry = tm__node_pair(r, node, i);
        const yaml_node_t *v = a->entry.value;
        if (v->type == YAML_MAPPING_NODE) TM__TRY(tm__node_map(r, v, tm__node_text(a->entry.key)));
        a->count = v->type == YAML_MAPPING_NODE ? tm__node_pairs(v) : tm__node_items(v);
        if (a->count == 0) return tm__plan_wrong(r, v, NULL, "an axis needs values:", tm__node_text(a->entry.key));
        if (a->count > TM__PLAN_PRODUCT / all)
            return tm__plan_wrong(r, node, "4096 at most", "the axes have too many combinations", NULL);
        all *= a->count;
    }
    return TM_OK;
}

tm_status tm__label_add(tm__reader *r, const yaml_node_t *node, char *name, const char *key, const char *value) {
    size_t len = strlen(name);
    int n = snprintf(name + len, TM__PLAN_NAME - len, "%s%s%s%s", len ? " " : "", key, *key ? "=" : "", value);
    if (n < 0 || (size_t)n >= TM__PLAN_NAME - len)
        return tm__plan_wrong(r, node, "95 bytes at most", "the name is too long:", name);
    if (strpbrk(name, "\"|,\n"))
        return tm__plan_wrong(r, node, "no quotes, bars or commas", "the name cannot stand in a table:", name);
    return TM_OK;
}

/* Applies value `index` of an axis and appends its label to `name`. */
static tm_status apply_axis(tm__reader *r, const tm__axis *a, size_t index, tm__apply apply, void *target, char *name) {
    if (a->entry.value->type == YAML_SEQUENCE_NODE) {
        const yaml_node_t *value =
            yaml_document_get_node(&r->document, a->entry.value->data.sequence.items.start[index]);
        const char *key = tm__node_text(a->entry.key), *dot = strrchr(key, '.');
        TM__TRY(apply(r, target, key, value));
        return tm__label_add(r, value, name, dot ? dot + 1 : key, tm__node_text(value));
    }
    tm__pair p = tm__node_pair(r, a->entry.value, index);
    TM__TRY(tm__node_map(r, p.value, tm__node_text(p.key)));
    for (size_t i = 0; i < tm__node_pairs(p.value); i++) {
        tm__pair o = tm__node_pair(r, p.value, i);
        TM__TRY(apply(r, target, tm__node_text(o.key), o.value));
    }
    return tm__label_add(r, p.key, name, "", tm__node_text(p.key));
}

size_t tm__axes_count(const tm__axis *axes, size_t count) {
    size_t n = 1;
    for (size_t i = 0; i < count; i++) n *= axes[i].count;
    return n;
}

tm_status tm__axes_apply(tm__reader *r, const tm__axis *axes, size_t count, size_t index, tm__apply apply, void *target,
                         char *name) {
    size_t stride = tm__axes_count(axes, count);
    for (size_t i = 0; i < count; i++) {
        stride /= axes[i].count;
        TM__TRY(apply_axis(r, &axes[i], index / stride % axes[i].count, apply, target, name));
    }
    return TM_OK;
}
