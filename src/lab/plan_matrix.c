/* plan_matrix.c: which arm meets which attacker, on which base.
 *
 *   matrix: {arms: [PATTERN, ...], attacks: [...], bases: [...],
 *            exclude: [{arm: PATTERN, attack: PATTERN, base: PATTERN}, ...],
 *            include: [{arm: PATTERN, attack: PATTERN, base: PATTERN, OPTION: VALUE, ...}, ...]}
 *
 * As in a workflow of GitHub Actions: the product of the lists (all there are where one is left out; an arm's own
 * `attacks` narrow it), less what an entry of `exclude` matches in all that it names; then every entry of `include` in
 * turn: where combinations that are there match what it names, its options are set in them; where none does, the
 * combinations that it names are added. OPTION is before.X, during.X, after.X or replicates (of the arm, so without
 * `attack`), or attack.X. A pattern may hold * and ?, and is matched against the name in the file and the name with
 * labels. Test: tests/unit/test_plan_matrix.c.
 */
#include "lab/plan_read.h"

/* What an entry names; NULL: all. */
typedef struct chosen {
    const char *arm, *attack, *base;
} chosen;

static bool like(const char *pattern, const char *name) {
    for (; *pattern && *pattern != '*'; pattern++, name++)
        if (!*name || (*pattern != '?' && *pattern != *name)) return false;
    if (!*pattern) return !*name;
    for (;; name++) {
        if (like(pattern + 1, name)) return true;
        if (!*name) return false;
    }
}

static bool is_arm(const char *pattern, const tm__plan_arm *arm) {
    return !pattern || like(pattern, arm->group) || like(pattern, arm->name);
}

static bool is_attack(const char *pattern, const tm__plan_attack *attack) {
    return !pattern || like(pattern, attack->group) || like(pattern, attack->name);
}

static bool is_base(const tm_plan *plan, const char *pattern, int base) {
    return !pattern || (base >= 0 && like(pattern, plan->bases[base].name));
}

static bool fits_arm(const tm_plan *plan, const chosen *c, const tm__plan_arm *arm) {
    return is_arm(c->arm, arm) && is_base(plan, c->base, arm->base);
}

/* ---- patterns ---------------------------------------------------------------------------------------------------- */

enum { ARM, ATTACK, BASE, PARTS };
static const char *const parts[] = {"arm", "attack", "base", NULL}, *const lists[] = {"arms",    "attacks", "bases",
                                                                                      "exclude", "include", NULL};

/* A pattern that matches something. */
static tm_status read_pattern(tm__reader *r, const yaml_node_t *node, size_t part, const char **pattern) {
    static const char *const what[] = {"there is no arm", "there is no attack", "there is no base"};
    const tm_plan *plan = r->plan;
    tm__nearest best = {0};
    bool found = false;
    TM__TRY(tm__node_string(r, node, parts[part], pattern));
    for (size_t i = 0; part == ARM && i < plan->arm_count; i++) {
        found |= is_arm(*pattern, &plan->arms[i]);
        tm__nearest_consider(&best, *pattern, plan->arms[i].group, strlen(plan->arms[i].group));
    }
    for (size_t i = 0; part == ATTACK && i < plan->attack_count; i++) {
        found |= is_attack(*pattern, &plan->attacks[i]);
        tm__nearest_consider(&best, *pattern, plan->attacks[i].group, strlen(plan->attacks[i].group));
    }
    for (size_t i = 0; part == BASE && i < plan->base_count; i++) {
        found |= is_base(plan, *pattern, (int)i);
        tm__nearest_consider(&best, *pattern, plan->bases[i].name, strlen(plan->bases[i].name));
    }
    return found ? TM_OK : tm__plan_unknown(r, node, &best, "a name, or a pattern with * and ?", what[part], *pattern);
}

/* Whether some pattern of the list fits. */
static tm_status listed(tm__reader *r, const yaml_node_t *list, size_t part, size_t arm, size_t attack, bool *fits) {
    const tm_plan *plan = r->plan;
    *fits = !list;
    for (size_t i = 0; !*fits && i < tm__node_items(list); i++) {
        const char *pattern = tm__node_text(tm__node_item(r, list, i));
        *fits = part == ARM      ? is_arm(pattern, &plan->arms[arm])
                : part == ATTACK ? is_attack(pattern, &plan->attacks[attack])
                                 : is_base(plan, pattern, plan->arms[arm].base);
    }
    return TM_OK;
}

static tm_status check_list(tm__reader *r, const yaml_node_t *list, size_t part) {
    const char *pattern;
    if (!list) return TM_OK;
    if (list->type != YAML_SEQUENCE_NODE)
        return tm__plan_wrong(r, list, "[NAME, NAME]", "a list is expected for", lists[part]);
    for (size_t i = 0; i < tm__node_items(list); i++)
        TM__TRY(read_pattern(r, tm__node_item(r, list, i), part, &pattern));
    return TM_OK;
}

static tm_status read_chosen(tm__reader *r, yaml_node_t *map, chosen *c) {
    const char **const field[] = {&c->arm, &c->attack, &c->base};
    *c = (chosen){0};
    for (size_t part = 0; part < PARTS; part++) {
        const yaml_node_t *node = tm__node_find(r, map, parts[part]);
        if (node) TM__TRY(read_pattern(r, node, part, field[part]));
    }
    return TM_OK;
}

/* ---- the product ------------------------------------------------------------------------------------------------- */

static bool has_attack(const tm__plan_arm *arm, const char *group) {
    char item[64];
    if (!arm->attacks) return true;
    for (const char *at = arm->attacks; tm__next_item(&at, item);)
        if (strcmp(item, group) == 0) return true;
    return false;
}

static tm_status make_product(tm__reader *r, yaml_node_t *map) {
    tm_plan *plan = r->plan;
    const yaml_node_t *list[PARTS] = {0};
    for (size_t part = 0; map && part < PARTS; part++) {
        list[part] = tm__node_find(r, map, lists[part]);
        TM__TRY(check_list(r, list[part], part));
    }
    for (size_t a = 0; a < plan->arm_count; a++) {
        tm__plan_arm *arm = &plan->arms[a];
        arm->met = tm__arena_alloc(&plan->arena, plan->attack_count + 1, sizeof *arm->met);
        if (!arm->met) return tm__fail_memory();
        for (size_t k = 0; k < plan->attack_count; k++) {
            bool fits = has_attack(arm, plan->attacks[k].group), also = true;
            for (size_t part = 0; part < PARTS; part++) {
                TM__TRY(listed(r, list[part], part, a, k, &also));
                fits &= also;
            }
            if (fits) arm->met[k] = &plan->attacks[k].step;
        }
    }
    return TM_OK;
}

static tm_status exclude(tm__reader *r, yaml_node_t *map) {
    tm_plan *plan = r->plan;
    chosen c;
    bool any = false;
    TM__TRY(tm__node_map(r, map, "an entry of exclude"));
    TM__TRY(tm__node_keys(r, map, parts, "arm, attack, base", "what is excluded has no"));
    if (!tm__node_pairs(map)) return tm__plan_wrong(r, map, "arm, attack, base", "the entry would exclude all", NULL);
    TM__TRY(read_chosen(r, map, &c));
    for (size_t a = 0; a < plan->arm_count; a++)
        for (size_t k = 0; k < plan->attack_count; k++) {
            tm__plan_arm *arm = &plan->arms[a];
            if (!arm->met[k] || !fits_arm(plan, &c, arm) || !is_attack(c.attack, &plan->attacks[k])) continue;
            arm->met[k] = NULL;
            any = true;
        }
    return any ? TM_OK : tm__plan_wrong(r, map, "leave it out", "no combination is left that this excludes", NULL);
}

/* ---- include ----------------------------------------------------------------------------------------------------- */

/* Options of an attacker as one arm meets it. */
static tm_status set_attack(tm__reader *r, tm__plan_arm *arm, size_t attack, tm__pair p) {
    tm__plan_step *own = tm__arena_alloc(&r->plan->arena, 1, sizeof *own);
    if (!own) return tm__fail_memory();
    *own = *arm->met[attack];
    TM__TRY(tm__step_copy(r, own));
    TM__TRY(tm__step_option(r, own, tm__node_text(p.key) + strlen("attack."), p.value));
    TM__TRY(tm__attack_check(r, p.value, false, own));
    arm->met[attack] = own;
    return TM_OK;
}

static tm_status set_one(tm__reader *r, const chosen *c, tm__plan_arm *arm, tm__pair p) {
    const char *key = tm__node_text(p.key);
    if (strcmp(key, "replicates") == 0) return tm__node_int(r, p.value, key, 1, TM__PLAN_REPLICATES, &arm->replicates);
    if (strncmp(key, "attack.", strlen("attack.")) != 0) return tm__arm_option(r, arm, key, p.value);
    for (size_t k = 0; k < r->plan->attack_count; k++)
        if (arm->met[k] && is_attack(c->attack, &r->plan->attacks[k])) TM__TRY(set_attack(r, arm, k, p));
    return TM_OK;
}

static tm_status set_options(tm__reader *r, yaml_node_t *map, const chosen *c) {
    tm__nearest best;
    for (size_t i = 0; i < tm__node_pairs(map); i++) {
        tm__pair p = tm__node_pair(r, map, i);
        const char *key = tm__node_text(p.key);
        if (parts[tm__name_in(parts, key, &best)]) continue;
        if (c->attack && strncmp(key, "attack.", strlen("attack.")) != 0)
            return tm__plan_wrong(r, p.key, "leave out attack", "holds for all attackers of an arm:", key);
        for (size_t a = 0; a < r->plan->arm_count; a++)
            if (fits_arm(r->plan, c, &r->plan->arms[a])) TM__TRY(set_one(r, c, &r->plan->arms[a], p));
    }
    return TM_OK;
}

static tm_status check_include(tm__reader *r, yaml_node_t *map) {
    static const char *const known[] = {"arm", "attack", "base", "replicates", NULL};
    static const char *const begins[] = {"before.", "during.", "after.", "attack."};
    for (size_t i = 0; i < tm__node_pairs(map); i++) {
        tm__pair p = tm__node_pair(r, map, i);
        tm__nearest best;
        bool fine = known[tm__name_in(known, tm__node_text(p.key), &best)] != NULL;
        for (size_t k = 0; k < TM__COUNT(begins); k++)
            fine |= strncmp(tm__node_text(p.key), begins[k], strlen(begins[k])) == 0;
        if (!fine)
            return tm__plan_unknown(r, p.key, &best,
                                    "arm, attack, base, replicates, before.X, during.X, after.X, attack.X",
                                    "what is included has no", tm__node_text(p.key));
    }
    return TM_OK;
}

static tm_status include(tm__reader *r, yaml_node_t *map) {
    tm_plan *plan = r->plan;
    chosen c;
    size_t there = 0;
    TM__TRY(tm__node_map(r, map, "an entry of include"));
    TM__TRY(check_include(r, map));
    TM__TRY(read_chosen(r, map, &c));
    for (size_t a = 0; a < plan->arm_count; a++)
        for (size_t k = 0; fits_arm(plan, &c, &plan->arms[a]) && k < plan->attack_count; k++)
            there += plan->arms[a].met[k] && is_attack(c.attack, &plan->attacks[k]);
    if (!there && (!c.arm || !c.attack))
        return tm__plan_wrong(r, map, "arm: NAME, attack: NAME", "what is added names an arm and an attack", NULL);
    for (size_t a = 0; !there && a < plan->arm_count; a++)
        for (size_t k = 0; fits_arm(plan, &c, &plan->arms[a]) && k < plan->attack_count; k++)
            if (is_attack(c.attack, &plan->attacks[k])) plan->arms[a].met[k] = &plan->attacks[k].step;
    return set_options(r, map, &c);
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static tm_status each_entry(tm__reader *r, yaml_node_t *map, const char *name,
                            tm_status (*see)(tm__reader *r, yaml_node_t *entry)) {
    const yaml_node_t *list = map ? tm__node_find(r, map, name) : NULL;
    if (!list) return TM_OK;
    if (list->type != YAML_SEQUENCE_NODE)
        return tm__plan_wrong(r, list, "- {arm: NAME, attack: NAME}", "a list is expected for", name);
    for (size_t i = 0; i < tm__node_items(list); i++) TM__TRY(see(r, tm__node_item(r, list, i)));
    return TM_OK;
}

tm_status tm__matrix_read(tm__reader *r, yaml_node_t *map) {
    if (map) TM__TRY(tm__node_map(r, map, "matrix"));
    if (map) TM__TRY(tm__node_keys(r, map, lists, "arms, attacks, bases, exclude, include", "a matrix has no"));
    TM__TRY(make_product(r, map));
    TM__TRY(each_entry(r, map, "exclude", exclude));
    return each_entry(r, map, "include", include);
}
