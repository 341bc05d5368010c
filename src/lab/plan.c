/* plan.c: reads a plan (YAML). Every error names file, line and column, and what was probably meant.
 *
 *   name, replicates
 *   worlds:  [SEED, ...]; model {hidden, layers, ffn}; probes {split, forbidden, withheld, skill, downstream, wrapper}
 *   bases:   NAME: {path: DIR, chat, template, template-vars, save}
 *   data:    NAME: {path: FILE, first, rows, shuffle, allow-overlap}
 *   evaluations: [{suite: NAME, name, data, OPTION: VALUE ...}]
 *   scores:  {harm: SCORE, ability: SCORE}
 *   train:   options of training that hold for every step unless it says otherwise
 *   stages:  NAME: {from: STAGE, method: NAME, harmful: SET, refusals: SET, benign: SET, data: SET, OPTION: VALUE ...}
 *   attacks: GROUP: {method: NAME, harmful: SET, benign: SET, OPTION: VALUE ...,
 *                    axes: {AXIS: [VALUES] or {LABEL: {OPTIONS}}}, or search: {...} (plan_search.c)}
 *   arms:    NAME: {from: STAGE, before: STEP or [STEPS], during: STEP, after: STEP or [STEPS], attacks: GROUP,...,
 *                   replicates: N, axes: {before.OPTION: [VALUES], LABEL: {during.OPTION: VALUE}}}
 *   budget:  {seconds, steps, memory, disk}
 *   matrix:  {arms, attacks, bases: [PATTERNS], exclude: [...], include: [...]} (plan_matrix.c)
 *
 * Sources are read by plan_sources.c, steps and axes by plan_steps.c.
 */
#include "lab/plan_read.h"

/* ---- stages ------------------------------------------------------------------------------------------------------ */

int tm__plan_find_stage(const tm_plan *plan, const char *name) {
    for (size_t i = 0; i < plan->stage_count; i++)
        if (strcmp(plan->stages[i].name, name) == 0) return (int)i;
    return -1;
}

bool tm__plan_is_base(const tm_plan *plan, int stage) {
    return plan->base_count && (stage < 0 || (plan->stages[stage].from < 0 && !plan->stages[stage].step.given));
}

static tm_status read_from(tm__reader *r, const yaml_node_t *map, int *from) {
    const yaml_node_t *node = tm__node_find(r, map, "from");
    *from = -1;
    if (!node) return TM_OK;
    if (tm__node_text(node)) *from = tm__plan_find_stage(r->plan, tm__node_text(node));
    if (*from >= 0) return TM_OK;
    const char *name = tm__node_text(node) ? tm__node_text(node) : "?";
    tm__nearest best = {0};
    for (size_t i = 0; i < r->plan->stage_count; i++)
        tm__nearest_consider(&best, name, r->plan->stages[i].name, strlen(r->plan->stages[i].name));
    return tm__plan_unknown(r, node, &best, "stages stand before those that start from them", "no stage is called",
                            name);
}

static tm_status read_stages(tm__reader *r, const yaml_node_t *node) {
    static const char *const with_step[] = {"method", "from", "seed", NULL}, *const without[] = {"from", "seed", NULL};
    tm_plan *plan = r->plan;
    if (!node) return TM_OK;
    TM__TRY(tm__node_map(r, node, "stages"));
    for (size_t i = 0; i < tm__node_pairs(node); i++) {
        tm__pair p = tm__node_pair(r, node, i);
        tm__plan_stage stage = {.seed = 1};
        TM__TRY(tm__node_map(r, p.value, tm__node_text(p.key)));
        TM__TRY(tm__node_string(r, p.key, "a stage", &stage.name));
        TM__TRY(read_from(r, p.value, &stage.from));
        yaml_node_t *seed = tm__node_find(r, p.value, "seed");
        int64_t number = 1;
        if (seed) TM__TRY(tm__node_int(r, seed, "seed", 0, INT64_MAX, &number));
        stage.seed = (uint64_t)number;
        if (tm__node_find(r, p.value, "method"))
            TM__TRY(tm__step_read(r, p.value, with_step, false, &stage.step));
        else if (stage.from >= 0)
            return tm__plan_wrong(r, p.value, "method: NAME", "the stage names no method", NULL);
        else
            TM__TRY(tm__node_keys(r, p.value, without, "method: NAME goes before options",
                                  "a stage without a method has no"));
        if (!tm__grow((void **)&plan->stages, &plan->stage_cap, plan->stage_count + 1, sizeof *plan->stages))
            return tm__fail_memory();
        plan->stages[plan->stage_count++] = stage;
    }
    return TM_OK;
}

/* ---- attacks ----------------------------------------------------------------------------------------------------- */

static tm_status apply_attack(tm__reader *r, void *target, const char *name, const yaml_node_t *value) {
    return tm__step_option(r, &((tm__plan_attack *)target)->step, name, value);
}

static tm_status read_attack(tm__reader *r, tm__pair p) {
    static const char *const skip[] = {"method", "axes", "search", NULL};
    tm_plan *plan = r->plan;
    tm__plan_attack attack = {.search = -1, .at = tm__node_mark(p.value)};
    const tm_method *method;
    tm__axis axes[TM__PLAN_AXES];
    size_t count;
    TM__TRY(tm__node_map(r, p.value, tm__node_text(p.key)));
    TM__TRY(tm__node_string(r, p.key, "an attack", &attack.group));
    const yaml_node_t *named = tm__node_find(r, p.value, "method");
    TM__TRY(tm__attack_method(r, named, &method));
    TM__TRY(tm__step_begin(r, method, &attack.step));
    TM__TRY(tm__step_options(r, &attack.step, p.value, skip));
    yaml_node_t *search = tm__node_find(r, p.value, "search"), *varied = tm__node_find(r, p.value, "axes");
    if (search && varied)
        return tm__plan_wrong(r, varied, "put them into the space", "a group has no search and", "axes");
    if (search) return tm__search_read(r, p, search, &attack, named != NULL);
    TM__TRY(tm__axes_read(r, varied, axes, &count));
    for (size_t i = 0; i < tm__axes_count(axes, count); i++) {
        tm__plan_attack made = attack;
        TM__TRY(tm__step_copy(r, &made.step));
        TM__TRY(tm__axes_apply(r, axes, count, i, apply_attack, &made, made.name));
        if (!made.name[0]) TM__TRY(tm__label_add(r, p.key, made.name, "", made.group));
        if (!tm__grow((void **)&plan->attacks, &plan->attack_cap, plan->attack_count + 1, sizeof *plan->attacks))
            return tm__fail_memory();
        TM__TRY(tm__attack_check(r, p.value, named != NULL, &made.step));
        plan->attacks[plan->attack_count++] = made;
    }
    return TM_OK;
}

static tm_status read_attacks(tm__reader *r, const yaml_node_t *node) {
    TM__TRY(tm__node_map(r, node, "attacks"));
    for (size_t i = 0; i < tm__node_pairs(node); i++) TM__TRY(read_attack(r, tm__node_pair(r, node, i)));
    return TM_OK;
}

/* ---- arms -------------------------------------------------------------------------------------------------------- */

static const char *const step_keys[] = {"method", NULL};

static tm_status read_steps(tm__reader *r, const yaml_node_t *node, tm__plan_step steps[TM__PLAN_STEPS],
                            size_t *count) {
    *count = 0;
    if (!node) return TM_OK;
    if (node->type == YAML_MAPPING_NODE) {
        *count = 1;
        return tm__step_read(r, node, step_keys, false, &steps[0]);
    }
    if (node->type != YAML_SEQUENCE_NODE)
        return tm__plan_wrong(r, node, NULL, "a step or a list of steps is expected", NULL);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        if (*count == TM__PLAN_STEPS) return tm__plan_wrong(r, node, "4 at most", "too many steps", NULL);
        TM__TRY(tm__step_read(r, yaml_document_get_node(&r->document, *item), step_keys, false, &steps[(*count)++]));
    }
    return TM_OK;
}

static tm_status check_groups(tm__reader *r, const yaml_node_t *node, const char *groups) {
    char group[64];
    for (const char *at = groups; tm__next_item(&at, group);) {
        bool found = false;
        tm__nearest best = {0};
        for (size_t i = 0; i < r->plan->attack_count; i++) {
            const char *name = r->plan->attacks[i].group;
            found |= strcmp(name, group) == 0;
            tm__nearest_consider(&best, group, name, strlen(name));
        }
        if (!found)
            return tm__plan_unknown(r, node, &best, "attacks: lists them", "there is no group of attacks", group);
    }
    return TM_OK;
}

static tm_status copy_arm(tm__reader *r, tm__plan_arm *arm) {
    for (size_t i = 0; i < arm->before_count; i++) TM__TRY(tm__step_copy(r, &arm->before[i]));
    for (size_t i = 0; i < arm->after_count; i++) TM__TRY(tm__step_copy(r, &arm->after[i]));
    return tm__step_copy(r, &arm->during);
}

/* One arm of the file, without its axes. */
static tm_status begin_arm(tm__reader *r, tm__pair p, tm__plan_arm *arm) {
    static const char *const known[] = {"from", "before", "during", "after", "attacks", "replicates", "axes", NULL};
    yaml_node_t *map = p.value;
    TM__TRY(tm__node_map(r, map, tm__node_text(p.key)));
    TM__TRY(tm__node_keys(r, map, known, "from, before, during, after, attacks, replicates, axes", "an arm has no"));
    TM__TRY(tm__node_string(r, p.key, "an arm", &arm->group));
    TM__TRY(read_from(r, map, &arm->from));
    if (arm->from < 0 && !r->plan->base_count)
        return tm__plan_wrong(r, map, "from: STAGE", "the arm starts from no stage:", arm->group);
    TM__TRY(read_steps(r, tm__node_find(r, map, "before"), arm->before, &arm->before_count));
    TM__TRY(read_steps(r, tm__node_find(r, map, "after"), arm->after, &arm->after_count));
    yaml_node_t *during = tm__node_find(r, map, "during"), *attacks = tm__node_find(r, map, "attacks");
    yaml_node_t *replicates = tm__node_find(r, map, "replicates");
    if (during) TM__TRY(tm__step_read(r, during, step_keys, true, &arm->during));
    if (replicates) TM__TRY(tm__node_int(r, replicates, "replicates", 1, TM__PLAN_REPLICATES, &arm->replicates));
    if (!attacks)
        return r->matrix ? TM_OK
                         : tm__plan_wrong(r, map, "attacks: GROUP,GROUP", "the arm meets no attacks:", arm->group);
    TM__TRY(tm__node_string(r, attacks, "attacks", &arm->attacks));
    return check_groups(r, attacks, arm->attacks);
}

/* A combination of its axes, on every base. */
static tm_status add_arms(tm__reader *r, tm__pair p, const tm__plan_arm *arm, const tm__axis *axes, size_t count,
                          size_t combination) {
    tm_plan *plan = r->plan;
    for (size_t b = 0; b < TM__MAX(plan->base_count, (size_t)1); b++) {
        tm__plan_arm made = *arm;
        made.base = plan->base_count ? (int)b : -1;
        TM__TRY(tm__label_add(r, p.key, made.name, "", arm->group));
        TM__TRY(copy_arm(r, &made));
        TM__TRY(tm__axes_apply(r, axes, count, combination, tm__arm_option, &made, made.name));
        if (plan->base_count > 1) TM__TRY(tm__label_add(r, p.key, made.name, "", plan->bases[b].name));
        if (!tm__grow((void **)&plan->arms, &plan->arm_cap, plan->arm_count + 1, sizeof *plan->arms))
            return tm__fail_memory();
        plan->arms[plan->arm_count++] = made;
    }
    return TM_OK;
}

static tm_status read_arm(tm__reader *r, tm__pair p) {
    tm__plan_arm arm = {.replicates = r->plan->replicates, .at = tm__node_mark(p.value)};
    tm__axis axes[TM__PLAN_AXES];
    size_t count;
    TM__TRY(begin_arm(r, p, &arm));
    TM__TRY(tm__axes_read(r, tm__node_find(r, p.value, "axes"), axes, &count));
    for (size_t i = 0; i < tm__axes_count(axes, count); i++) TM__TRY(add_arms(r, p, &arm, axes, count, i));
    return TM_OK;
}

static tm_status read_arms(tm__reader *r, const yaml_node_t *node) {
    TM__TRY(tm__node_map(r, node, "arms"));
    for (size_t i = 0; i < tm__node_pairs(node); i++) TM__TRY(read_arm(r, tm__node_pair(r, node, i)));
    return TM_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static tm_status read_worlds(tm__reader *r, const yaml_node_t *node) {
    if (!node) return TM_OK;
    if (node->type != YAML_SEQUENCE_NODE)
        return tm__plan_wrong(r, node, "worlds: [1, 2]", "a list of seeds is expected", NULL);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        int64_t seed;
        if (r->plan->world_count == TM__PLAN_WORLDS)
            return tm__plan_wrong(r, node, "16 at most", "too many worlds", NULL);
        const yaml_node_t *value = yaml_document_get_node(&r->document, *item);
        TM__TRY(tm__node_int(r, value, "a world", 0, INT64_MAX, &seed));
        for (size_t i = 0; i < r->plan->world_count; i++)
            if (r->plan->worlds[i] == (uint64_t)seed)
                return tm__plan_wrong(r, value, "remove one", "stands twice:", tm__node_text(value));
        r->plan->worlds[r->plan->world_count++] = (uint64_t)seed;
    }
    return r->plan->world_count ? TM_OK : tm__plan_wrong(r, node, NULL, "at least one world is needed", NULL);
}

/* `names` ends with NULL; those at and behind `count` are read elsewhere. */
static tm_status read_numbers(tm__reader *r, const yaml_node_t *map, const char *what, const char *const *names,
                              int64_t *const *values, size_t count) {
    if (!map) return TM_OK;
    TM__TRY(tm__node_map(r, map, what));
    for (size_t i = 0; i < tm__node_pairs(map); i++) {
        tm__pair p = tm__node_pair(r, map, i);
        tm__nearest best;
        size_t k = tm__name_in(names, tm__node_text(p.key), &best);
        if (!names[k])
            return tm__plan_unknown(r, p.key, &best, "docs/experiments.md lists them",
                                    "unknown here:", tm__node_text(p.key));
        if (k < count) TM__TRY(tm__node_int(r, p.value, tm__node_text(p.key), 1, INT32_MAX, values[k]));
    }
    return TM_OK;
}

static tm_status read_split(tm__reader *r, const yaml_node_t *node, int *split) {
    tm__nearest best = {0};
    if (!node) return TM_OK;
    if (!tm__node_text(node)) return tm__plan_wrong(r, node, NULL, "a single value is expected for", "split");
    for (int i = 0; i < TM_WORLD_SPLITS; i++) {
        const char *name = tm__world_split_name(i);
        if (strcmp(tm__node_text(node), name) == 0) {
            *split = i;
            return TM_OK;
        }
        tm__nearest_consider(&best, tm__node_text(node), name, strlen(name));
    }
    return tm__plan_unknown(r, node, &best, "development or test", "there is no split", tm__node_text(node));
}

static tm_status read_probes(tm__reader *r, const yaml_node_t *map) {
    tm__probes *p = &r->plan->probes;
    *p = (tm__probes){.split = TM_WORLD_TEST, .forbidden = 108, .withheld = 60, .skill = 36, .downstream = 72};
    static const char *const names[] = {"forbidden", "withheld", "skill", "downstream", "split", "wrapper", NULL};
    int64_t *const values[] = {&p->forbidden, &p->withheld, &p->skill, &p->downstream};
    TM__TRY(read_numbers(r, map, "probes", names, values, TM__COUNT(values)));
    if (!map) return TM_OK;
    TM__TRY(read_split(r, tm__node_find(r, map, "split"), &p->split));
    const yaml_node_t *wrapper = tm__node_find(r, map, "wrapper");
    return wrapper ? tm__node_flag(r, wrapper, "wrapper", &r->plan->wrapper) : TM_OK;
}

/* Asking through a wrapper means something only where an attack has one. */
static tm_status check_wrapper(tm__reader *r, const yaml_node_t *probes) {
    bool any = !r->plan->wrapper;
    for (size_t i = 0; i < r->plan->attack_count; i++) any |= tm__plan_asks_wrapped(r->plan, &r->plan->attacks[i]);
    return any ? TM_OK
               : tm__plan_wrong(r, tm__node_find(r, probes, "wrapper"),
                                "an attack of method: identity-shift, or leave it out",
                                "no attack of the plan has a wrapper", NULL);
}

static tm_status read_shape(tm__reader *r, const yaml_node_t *map) {
    tm_plan *plan = r->plan;
    static const char *const names[] = {"hidden", "layers", "ffn", NULL};
    int64_t *const values[] = {&plan->hidden, &plan->layers, &plan->ffn};
    plan->hidden = 128;
    plan->layers = 4;
    plan->ffn = 384;
    TM__TRY(read_numbers(r, map, "model", names, values, TM__COUNT(values)));
    return plan->hidden % 8 == 0 ? TM_OK
                                 : tm__plan_wrong(r, map, "a multiple of 8", "hidden does not fit 4 heads", NULL);
}

enum {
    NAME,
    WORLDS,
    REPLICATES,
    MODEL,
    PROBES,
    BASES,
    DATA,
    EVALUATIONS,
    SCORES,
    TRAIN,
    STAGES,
    ATTACKS,
    ARMS,
    MATRIX,
    BUDGET,
    KEYS
};
static const char *const keys[] = {"name", "worlds",      "replicates", "model", "probes", "bases",
                                   "data", "evaluations", "scores",     "train", "stages", "attacks",
                                   "arms", "matrix",      "budget",     NULL};

static tm_status find_keys(tm__reader *r, const yaml_node_t *root, yaml_node_t *node[KEYS]) {
    static const int required[] = {NAME, REPLICATES, ATTACKS, ARMS};
    TM__TRY(tm__node_map(r, root, "the plan"));
    TM__TRY(tm__node_keys(r, root, keys,
                          "name, worlds, replicates, model, probes, bases, data, evaluations, scores, train, stages, "
                          "attacks, arms, matrix, budget",
                          "a plan has no"));
    for (int k = 0; k < KEYS; k++) node[k] = tm__node_find(r, (yaml_node_t *)root, keys[k]);
    for (size_t i = 0; i < TM__COUNT(required); i++)
        if (!node[required[i]]) return tm__plan_wrong(r, root, NULL, "the plan lacks", keys[required[i]]);
    if (!node[WORLDS] && !node[BASES])
        return tm__plan_wrong(r, root, "worlds: [SEED] or bases: {NAME: DIR}", "the plan has no models to begin with",
                              NULL);
    if (!node[STAGES] && !node[BASES]) return tm__plan_wrong(r, root, NULL, "the plan lacks", keys[STAGES]);
    if (!node[WORLDS] && !node[EVALUATIONS])
        return tm__plan_wrong(r, root, "evaluations: [{suite: NAME, data: PATH}]", "no cell would be measured", NULL);
    if (node[MODEL] && node[BASES])
        return tm__plan_wrong(r, node[MODEL], "bases have their own shape",
                              "is only for worlds without bases:", "model");
    return TM_OK;
}

/* Options of training as every step begins with. */
static tm_status read_train(tm__reader *r, yaml_node_t *node) {
    tm__plan_step plain;
    r->defaults = node;
    if (node) TM__TRY(tm__node_map(r, node, "train"));
    TM__TRY(tm__step_begin(r, NULL, &plain));
    r->plan->train = plain.train;
    return TM_OK;
}

static tm_status read_root(tm__reader *r, const yaml_node_t *root) {
    yaml_node_t *node[KEYS];
    tm_plan *plan = r->plan;
    const char *name;
    TM__TRY(find_keys(r, root, node));
    TM__TRY(tm__node_string(r, node[NAME], "name", &name));
    plan->name = (char *)name;
    r->matrix = node[MATRIX];
    TM__TRY(read_worlds(r, node[WORLDS]));
    TM__TRY(tm__node_int(r, node[REPLICATES], "replicates", 1, TM__PLAN_REPLICATES, &plan->replicates));
    TM__TRY(read_shape(r, node[MODEL]));
    TM__TRY(read_probes(r, node[PROBES]));
    TM__TRY(tm__bases_read(r, node[BASES]));
    TM__TRY(tm__data_read(r, node[DATA]));
    TM__TRY(tm__evaluations_read(r, node[EVALUATIONS]));
    TM__TRY(tm__scores_read(r, node[SCORES]));
    TM__TRY(tm__budget_read(r, node[BUDGET]));
    TM__TRY(read_train(r, node[TRAIN]));
    TM__TRY(read_stages(r, node[STAGES]));
    TM__TRY(read_attacks(r, node[ATTACKS]));
    if (node[PROBES]) TM__TRY(check_wrapper(r, node[PROBES]));
    TM__TRY(read_arms(r, node[ARMS]));
    return tm__matrix_read(r, node[MATRIX]);
}

tm_status tm__plan_read(tm_plan *plan) {
    tm__reader r = {.plan = plan};
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
