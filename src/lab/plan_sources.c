/* plan_sources.c: what a plan takes from files: bases (checkpoints), data (rows), evaluations (suites). Only read here;
 * plan_data.c opens them. Paths are taken from the plan's directory on.
 */
#include "lab/plan_read.h"

#include "eval/suite.h"

#include <stdlib.h>

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
    if (plan->base_count == TM__PLAN_BASES) return tm__plan_wrong(r, p.key, "32 at most", "too many bases", NULL);
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
    return tm__plan_unknown(r, key, &best, "suite, name, data, judges, and options of temper eval",
                            "an evaluation has no", name);
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

/* "NAME=PATH,OPTION=VALUE": the path is taken from the plan's directory on, where there is such a file. */
static tm_status read_judge(tm__reader *r, const yaml_node_t *node, const char **spec) {
    tm__nearest best = {0};
    tm_judge_about about;
    char kind[64];
    TM__TRY(tm__node_string(r, node, "a judge", spec));
    size_t len = strcspn(*spec, "=,");
    snprintf(kind, sizeof kind, "%.*s", (int)TM__MIN(len, sizeof kind - 1), *spec);
    bool known = false;
    for (size_t i = 0; !known && tm_judge_kind_at(i, &about); i++) {
        known = strcmp(about.name, kind) == 0;
        tm__nearest_consider(&best, kind, about.name, strlen(about.name));
    }
    if (!known) return tm__plan_unknown(r, node, &best, "temper judge --list names them", "there is no judge", kind);
    const char *path = *spec + len + 1, *slash = strrchr(r->plan->path, '/');
    size_t folder = slash ? (size_t)(slash - r->plan->path) + 1 : 0;
    if ((*spec)[len] != '=' || *path == '/' || !folder) return TM_OK;
    char *joined = tm__format("%.*s%.*s", (int)folder, r->plan->path, (int)strcspn(path, ","), path);
    if (!joined) return tm__fail_memory();
    bool there = tm__path_exists(joined);
    free(joined);
    if (!there) return TM_OK;
    joined = tm__format("%s=%.*s%s", kind, (int)folder, r->plan->path, path);
    *spec = joined ? tm__arena_strdup(&r->plan->arena, joined, strlen(joined)) : NULL;
    free(joined);
    return *spec ? TM_OK : tm__fail_memory();
}

static tm_status read_judges(tm__reader *r, const yaml_node_t *node, tm__plan_evaluation *e) {
    if (node->type != YAML_SEQUENCE_NODE)
        return tm__plan_wrong(r, node, "[keywords, \"classifier=DIR\"]", "a list is expected for", "judges");
    if (e->suite->kind != TM_SUITE_ANSWERS)
        return tm__plan_wrong(r, node, "leave it out", "there are no answers to judge in suite", e->suite->name);
    if (tm__node_items(node) > TM__PLAN_JUDGES) return tm__plan_wrong(r, node, "8 at most", "too many judges", NULL);
    for (; e->judge_count < tm__node_items(node); e->judge_count++)
        TM__TRY(read_judge(r, tm__node_item(r, node, e->judge_count), &e->judges[e->judge_count]));
    return TM_OK;
}

static tm_status read_evaluation(tm__reader *r, yaml_node_t *map) {
    static const char *const own[] = {"suite", "name", "data", "judges", "world", "split", NULL};
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
        else if (strcmp(key, "judges") == 0)
            TM__TRY(read_judges(r, p.value, &e));
        else if (strcmp(key, "world") == 0)
            TM__TRY(tm__node_int(r, p.value, "world", 0, INT64_MAX, &e.options.world));
        else if (strcmp(key, "split") == 0)
            TM__TRY(read_choice(r, p.value, "split", "defender|attacker|development|test|withheld", &e.options.split));
        else if (tm_options_find(tm_eval_option_table, key))
            TM__TRY(read_option(r, p, &e));
        else if (strcmp(key, "suite") != 0)
            return no_option(r, p.key, own);
    }
    if (e.suite->judged && !e.judge_count) e.judges[e.judge_count++] = "keywords";
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

/* Names of scores, as far as they can be told before anything is asked. */
typedef struct candidates {
    tm_plan *plan;
    const char *name; /* that is looked for */
    bool found;
    tm__nearest best;
} candidates;

/* A score, and with `parts` all that begin with it and a point. */
static void consider(candidates *c, const char *score, bool parts) {
    size_t len = strlen(score);
    c->found |= strcmp(score, c->name) == 0;
    c->found |= parts && strncmp(score, c->name, len) == 0 && c->name[len] == '.';
    const char *kept = tm__arena_strdup(&c->plan->arena, score, len);
    if (kept) tm__nearest_consider(&c->best, c->name, kept, len);
}

/* "as=NAME" of a spec, else its kind. */
static void judge_name(const char *spec, char name[64]) {
    const char *as = strstr(spec, ",as=");
    const char *at = as ? as + strlen(",as=") : spec;
    snprintf(name, 64, "%.*s", (int)strcspn(at, as ? "," : "=,"), at);
}

static void consider_judge(candidates *c, const char *evaluation, const char *spec) {
    static const char *const also[] = {"refusal", "over_refusal", "missing", "coherent", "empty", NULL};
    char name[64], kind[64], full[TM__SCORE_NAME + 64];
    tm_judge_about about;
    judge_name(spec, name);
    snprintf(kind, sizeof kind, "%.*s", (int)TM__MIN(strcspn(spec, "=,"), sizeof kind - 1), spec);
    for (size_t i = 0; tm_judge_kind_at(i, &about); i++)
        for (size_t k = 0; strcmp(about.name, kind) == 0 && about.numbers[k]; k++) {
            snprintf(full, sizeof full, "%s.%s.%s", evaluation, name, about.numbers[k]);
            consider(c, full, true);
            snprintf(full, sizeof full, "%s.%s.%s+", evaluation, name, about.numbers[k]);
            consider(c, full, true);
        }
    for (size_t k = 0; also[k]; k++) {
        snprintf(full, sizeof full, "%s.%s.%s", evaluation, name, also[k]);
        consider(c, full, true);
    }
}

static void consider_all(candidates *c) {
    static const char *const world[] = {"leak",   "comply", "refuse",     "withheld_leak", "withheld_comply", "skills",
                                        "dishes", "facts",  "arithmetic", "sentiment",     "downstream",      NULL};
    const tm_plan *plan = c->plan;
    char full[TM__SCORE_NAME];
    for (size_t i = 0; plan->world_count && world[i]; i++) consider(c, world[i], false);
    for (size_t i = 0; i < plan->evaluation_count; i++) {
        const tm__plan_evaluation *e = &plan->evaluations[i];
        for (const tm__measure *m = e->suite->calls->measures; m && m->name; m++) {
            snprintf(full, sizeof full, "%s.%s", e->name, m->name);
            consider(c, full, m->by_group);
        }
        for (size_t k = 0; k < e->judge_count; k++) consider_judge(c, e->name, e->judges[k]);
    }
}

tm_status tm__score_read(tm__reader *r, const yaml_node_t *node, const char **score) {
    TM__TRY(tm__node_string(r, node, "a score", score));
    candidates c = {.plan = r->plan, .name = *score};
    consider_all(&c);
    if (c.found) return TM_OK;
    return tm__plan_unknown(r, node, &c.best, "EVALUATION.NUMBER or EVALUATION.JUDGE.NUMBER, as temper eval --list has",
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

/* ---- budget ------------------------------------------------------------------------------------------------------ */

/* A number and a unit, of a list of units with what they are worth. */
static tm_status read_amount(tm__reader *r, const yaml_node_t *node, const char *const *units, const double *worth,
                             double *amount) {
    const char *text = tm__node_text(node);
    char *end = NULL;
    double number = text ? strtod(text, &end) : 0;
    if (!text || end == text || !(number > 0 && number < 1e18))
        return tm__plan_wrong(r, node, "a number above 0, with a unit behind it or without",
                              "is no amount:", text ? text : "a list");
    while (*end == ' ') end++;
    for (size_t i = 0; units[i]; i++)
        if (strcmp(end, units[i]) == 0) {
            *amount = number * worth[i];
            return TM_OK;
        }
    return tm__plan_wrong(r, node, strcmp(units[1], "s") == 0 ? "s, m, h" : "KiB, MiB, GiB, TiB", "there is no unit",
                          end);
}

tm_status tm__budget_read(tm__reader *r, const yaml_node_t *node) {
    static const char *const known[] = {"seconds", "steps", "memory", "disk", NULL};
    static const char *const times[] = {"", "s", "m", "h", NULL}, *const sizes[] = {"",    "KiB", "MiB",
                                                                                    "GiB", "TiB", NULL};
    static const double seconds[] = {1, 1, 60, 3600}, bytes[] = {1, 0x1p10, 0x1p20, 0x1p30, 0x1p40};
    tm_plan_budget *b = &r->plan->budget;
    yaml_node_t *map = (yaml_node_t *)node;
    double amount;
    if (!node) return TM_OK;
    TM__TRY(tm__node_map(r, node, "budget"));
    TM__TRY(tm__node_keys(r, node, known, "seconds, steps, memory, disk", "a budget has no"));
    const yaml_node_t *time = tm__node_find(r, map, "seconds"), *steps = tm__node_find(r, map, "steps");
    const yaml_node_t *memory = tm__node_find(r, map, "memory"), *disk = tm__node_find(r, map, "disk");
    if (time) TM__TRY(read_amount(r, time, times, seconds, &b->seconds));
    if (steps) TM__TRY(tm__node_int(r, steps, "steps", 1, INT64_MAX, &b->steps));
    if (memory) {
        TM__TRY(read_amount(r, memory, sizes, bytes, &amount));
        b->memory = (int64_t)amount;
    }
    if (disk) {
        TM__TRY(read_amount(r, disk, sizes, bytes, &amount));
        b->disk = (int64_t)amount;
    }
    return TM_OK;
}
