/* plan_sources.c: what a plan takes from files: bases (checkpoints), data (rows), evaluations (suites). Only read here;
 * plan_data.c opens them. Paths are taken from the plan's directory on.
 */
#include "lab/plan_read.h"

#include "eval/suite.h"

/* Names stand in lists separated by commas, and in front of numbers. */
static tm_status read_name(tm__reader *r, const yaml_node_t *node, const char **name) {
    TM__TRY(tm__node_string(r, node, "a name", name));
    size_t len = strlen(*name);
    return len > 0 && len < 32 && !strpbrk(*name, ",.\"|\n")
               ? TM_OK
               : tm__plan_wrong(r, node, "1 to 31 bytes, no commas, points, quotes or bars",
                                "cannot be a name:", *name);
}

/* The value of NAME: PATH, or of NAME: {path: PATH, ...}. */
static tm_status read_path(tm__reader *r, tm__pair p, const char *const *known, const char *hint, const char *what,
                           const char **path) {
    const yaml_node_t *node = p.value;
    if (node->type == YAML_MAPPING_NODE) {
        TM__TRY(tm__node_map(r, p.value, what));
        TM__TRY(tm__node_keys(r, p.value, known, hint, what));
        node = tm__node_find(r, p.value, "path");
        if (!node) return tm__plan_wrong(r, p.value, "path: PATH", "lacks its path:", tm__node_text(p.key));
    }
    return tm__node_path(r, node, "path", path);
}

static yaml_node_t *part(tm__reader *r, yaml_node_t *node, const char *key) {
    return node->type == YAML_MAPPING_NODE ? tm__node_find(r, node, key) : NULL;
}

/* One of the words that `choices` separates by bars. */
static tm_status read_choice(tm__reader *r, const yaml_node_t *node, const char *what, const char *choices,
                             int *chosen) {
    const tm_option table[] = {{.name = what, .type = TM_OPTION_CHOICE, .choices = choices}, {0}};
    const char *text;
    if (!node) return TM_OK;
    TM__TRY(tm__node_string(r, node, what, &text));
    return tm_options_set(table, chosen, what, text) == TM_OK ? TM_OK : tm__plan_placed(r, node);
}

/* ---- bases ------------------------------------------------------------------------------------------------------- */

static tm_status read_base(tm__reader *r, tm__pair p) {
    static const char *const known[] = {"path", "chat", "template", "template-vars", "save", NULL};
    tm_plan *plan = r->plan;
    tm__plan_base base = {.at = tm__node_mark(p.value), .save = TM_SAVE_F32};
    TM__TRY(read_name(r, p.key, &base.name));
    TM__TRY(read_path(r, p, known, "path, chat, template, template-vars, save", "a base has no", &base.path));
    const yaml_node_t *template = part(r, p.value, "template"), *variables = part(r, p.value, "template-vars");
    if (template) TM__TRY(tm__node_string(r, template, "template", &base.template));
    if (variables) TM__TRY(tm__node_string(r, variables, "template-vars", &base.variables));
    TM__TRY(read_choice(r, part(r, p.value, "chat"), "chat", tm_options_find(tm_train_option_table, "chat")->choices,
                        &base.chat));
    TM__TRY(read_choice(r, part(r, p.value, "save"), "save", "keep|fp32|bf16|fp16", &base.save));
    if (template) { /* a file, or a name that the tokenizer knows */
        const char *file;
        TM__TRY(tm__node_path(r, template, "template", &file));
        if (tm__path_exists(file)) base.template = file;
    }
    if (!tm__grow((void **)&plan->bases, &plan->base_cap, plan->base_count + 1, sizeof *plan->bases))
        return tm__fail_memory();
    plan->bases[plan->base_count++] = base;
    return TM_OK;
}

tm_status tm__bases_read(tm__reader *r, const yaml_node_t *node) {
    if (!node) return TM_OK;
    TM__TRY(tm__node_map(r, node, "bases"));
    if (!tm__node_pairs(node)) return tm__plan_wrong(r, node, "NAME: DIR", "there is no base in", "bases");
    for (size_t i = 0; i < tm__node_pairs(node); i++) TM__TRY(read_base(r, tm__node_pair(r, node, i)));
    return TM_OK;
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

static tm_status read_rows(tm__reader *r, tm__pair p) {
    static const char *const known[] = {"path", "first", "rows", "shuffle", "allow-overlap", NULL};
    tm_plan *plan = r->plan;
    tm__plan_data data = {.at = tm__node_mark(p.value), .shuffle = -1};
    const char *set;
    TM__TRY(read_name(r, p.key, &data.name));
    for (size_t i = 0; plan->world_count && (set = tm_world_set_name(i)); i++)
        if (strcmp(set, data.name) == 0)
            return tm__plan_wrong(r, p.key, "choose another", "is the name of a set of the world:", data.name);
    TM__TRY(read_path(r, p, known, "path, first, rows, shuffle, allow-overlap", "data has no", &data.path));
    const yaml_node_t *first = part(r, p.value, "first"), *rows = part(r, p.value, "rows");
    const yaml_node_t *shuffle = part(r, p.value, "shuffle"), *allow = part(r, p.value, "allow-overlap");
    if (first) TM__TRY(tm__node_int(r, first, "first", 0, INT32_MAX, &data.first));
    if (rows) TM__TRY(tm__node_int(r, rows, "rows", 1, INT32_MAX, &data.rows));
    if (shuffle) TM__TRY(tm__node_int(r, shuffle, "shuffle", 0, INT64_MAX, &data.shuffle));
    if (allow) TM__TRY(tm__node_flag(r, allow, "allow-overlap", &data.may_overlap));
    if (!tm__grow((void **)&plan->data, &plan->data_cap, plan->data_count + 1, sizeof *plan->data))
        return tm__fail_memory();
    plan->data[plan->data_count++] = data;
    return TM_OK;
}

tm_status tm__data_read(tm__reader *r, const yaml_node_t *node) {
    if (!node) return TM_OK;
    TM__TRY(tm__node_map(r, node, "data"));
    for (size_t i = 0; i < tm__node_pairs(node); i++) TM__TRY(read_rows(r, tm__node_pair(r, node, i)));
    return TM_OK;
}

/* ---- evaluations ------------------------------------------------------------------------------------------------- */

static tm_status read_suite(tm__reader *r, yaml_node_t *map, const tm_suite **suite) {
    const yaml_node_t *node = tm__node_find(r, map, "suite");
    tm__nearest best = {0};
    const tm_suite *other;
    if (!node) return tm__plan_wrong(r, map, "suite: NAME", "the evaluation names no suite", NULL);
    const char *name = tm__node_text(node);
    if (!name) return tm__plan_wrong(r, node, NULL, "a suite's name is expected", NULL);
    *suite = tm_suite_find(name);
    if (*suite) return TM_OK;
    for (size_t i = 0; (other = tm_suite_at(i)); i++)
        tm__nearest_consider(&best, name, other->name, strlen(other->name));
    return tm__plan_unknown(r, node, &best, "temper eval --list names them", "there is no suite", name);
}

static tm_status no_option(tm__reader *r, const yaml_node_t *key, const char *const *own) {
    tm__nearest best = {0};
    const char *name = tm__node_text(key);
    for (size_t i = 0; own[i]; i++) tm__nearest_consider(&best, name, own[i], strlen(own[i]));
    for (const tm_option *o = tm_eval_option_table; o->name; o++)
        tm__nearest_consider(&best, name, o->name, strlen(o->name));
    return tm__plan_unknown(r, key, &best, "suite, name, data, and options of temper eval", "an evaluation has no",
                            name);
}

static tm_status read_option(tm__reader *r, tm__pair p, tm__plan_evaluation *e) {
    const char *name = tm__node_text(p.key), *value;
    const tm_option *option = tm_options_find(tm_eval_option_table, name);
    e->chat_of_base |= strcmp(name, "chat") == 0 && tm__node_text(p.value) && !strcmp(tm__node_text(p.value), "base");
    if (strcmp(name, "chat") == 0 && e->chat_of_base)
        return r->plan->base_count ? TM_OK
                                   : tm__plan_wrong(r, p.value, "bases: names them", "the plan has no bases", NULL);
    TM__TRY(tm__option_is_path(option) ? tm__node_path(r, p.value, name, &value)
                                       : tm__node_string(r, p.value, name, &value));
    return tm_options_set(tm_eval_option_table, &e->options, name, value) == TM_OK ? TM_OK
                                                                                   : tm__plan_placed(r, p.value);
}

static tm_status read_evaluation(tm__reader *r, yaml_node_t *map) {
    static const char *const own[] = {"suite", "name", "data", "world", "split", NULL};
    tm_plan *plan = r->plan;
    tm__plan_evaluation e = {.at = tm__node_mark(map)};
    TM__TRY(tm__node_map(r, map, "an evaluation"));
    TM__TRY(read_suite(r, map, &e.suite));
    tm_options_default(tm_eval_option_table, &e.options);
    e.options.split = TM_WORLD_TEST;
    e.name = e.suite->name;
    for (size_t i = 0; i < tm__node_pairs(map); i++) {
        tm__pair p = tm__node_pair(r, map, i);
        const char *key = tm__node_text(p.key);
        if (strcmp(key, "name") == 0)
            TM__TRY(read_name(r, p.value, &e.name));
        else if (strcmp(key, "data") == 0)
            TM__TRY(tm__node_path(r, p.value, "data", &e.data));
        else if (strcmp(key, "world") == 0)
            TM__TRY(tm__node_int(r, p.value, "world", 0, INT64_MAX, &e.options.world));
        else if (strcmp(key, "split") == 0)
            TM__TRY(read_choice(r, p.value, "split", "defender|attacker|development|test|withheld", &e.options.split));
        else if (tm_options_find(tm_eval_option_table, key))
            TM__TRY(read_option(r, p, &e));
        else if (strcmp(key, "suite") != 0)
            return no_option(r, p.key, own);
    }
    for (size_t i = 0; i < plan->evaluation_count; i++)
        if (strcmp(plan->evaluations[i].name, e.name) == 0)
            return tm__plan_wrong(r, map, "give one a name: of its own", "two evaluations have this name:", e.name);
    if (!tm__grow((void **)&plan->evaluations, &plan->evaluation_cap, plan->evaluation_count + 1,
                  sizeof *plan->evaluations))
        return tm__fail_memory();
    plan->evaluations[plan->evaluation_count++] = e;
    return TM_OK;
}

tm_status tm__evaluations_read(tm__reader *r, const yaml_node_t *node) {
    if (!node) return TM_OK;
    if (node->type != YAML_SEQUENCE_NODE)
        return tm__plan_wrong(r, node, "- {suite: NAME, data: PATH}", "a list of suites is expected", NULL);
    for (size_t i = 0; i < tm__node_items(node); i++) TM__TRY(read_evaluation(r, tm__node_item(r, node, i)));
    return TM_OK;
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Whether cells have a score of this name. */
static bool score_exists(tm_plan *plan, const char *name, tm__nearest *best) {
    static const char *const world[] = {"leak",   "comply", "refuse",     "withheld_leak", "withheld_comply", "skills",
                                        "dishes", "facts",  "arithmetic", "sentiment",     "downstream",      NULL};
    char full[TM__SCORE_NAME];
    *best = (tm__nearest){0};
    for (size_t i = 0; plan->world_count && world[i]; i++) {
        if (strcmp(world[i], name) == 0) return true;
        tm__nearest_consider(best, name, world[i], strlen(world[i]));
    }
    for (size_t i = 0; i < plan->evaluation_count; i++)
        for (const tm__measure *m = plan->evaluations[i].suite->calls->measures; m->name; m++) {
            snprintf(full, sizeof full, "%s.%s", plan->evaluations[i].name, m->name);
            size_t len = strlen(full);
            if (strcmp(full, name) == 0 || (m->by_group && strncmp(full, name, len) == 0 && name[len] == '.'))
                return true;
            const char *kept = tm__arena_strdup(&plan->arena, full, len);
            if (kept) tm__nearest_consider(best, name, kept, len);
        }
    return false;
}

tm_status tm__score_read(tm__reader *r, const yaml_node_t *node, const char **score) {
    tm__nearest best;
    TM__TRY(tm__node_string(r, node, "a score", score));
    if (score_exists(r->plan, *score, &best)) return TM_OK;
    return tm__plan_unknown(r, node, &best, "EVALUATION.NUMBER, as temper eval --list names the numbers",
                            "no cell will have a score", *score);
}

tm_status tm__scores_read(tm__reader *r, const yaml_node_t *node) {
    static const char *const known[] = {"harm", "ability", NULL};
    tm_plan *plan = r->plan;
    plan->harm = plan->world_count ? "leak" : NULL;
    plan->ability = plan->world_count ? "skills" : NULL;
    if (!node) return TM_OK;
    TM__TRY(tm__node_map(r, node, "scores"));
    TM__TRY(tm__node_keys(r, node, known, "harm, ability", "scores has no"));
    const yaml_node_t *harm = tm__node_find(r, (yaml_node_t *)node, "harm");
    const yaml_node_t *ability = tm__node_find(r, (yaml_node_t *)node, "ability");
    if (harm) TM__TRY(tm__score_read(r, harm, &plan->harm));
    return ability ? tm__score_read(r, ability, &plan->ability) : TM_OK;
}
