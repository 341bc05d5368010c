/* plan_check.c: what a plan may not say, found before anything is made: names that stand for two things, attackers that
 * a fine-tuning service cannot serve, and rows that defender and attacker share. */
#include "lab/search.h"

static tm_status check_names(const tm_plan *plan) {
    for (size_t i = 0; i < plan->arm_count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(plan->arms[i].name, plan->arms[k].name) == 0)
                return tm__plan_fail_at(plan, plan->arms[i].at, TM_INVALID, plan->arms[i].name, NULL,
                                        "two arms have this name");
    for (size_t i = 0; i < plan->attack_count; i++)
        for (size_t k = 0; k < i; k++) {
            const tm__plan_attack *a = &plan->attacks[i], *b = &plan->attacks[k];
            char x[65], y[65];
            if (strcmp(a->name, b->name) != 0) continue;
            tm__plan_step_hash(plan, plan->world_count ? 0 : -1, -1, &a->step, x);
            tm__plan_step_hash(plan, plan->world_count ? 0 : -1, -1, &b->step, y);
            if (strcmp(a->group, b->group) == 0 || strcmp(x, y) != 0)
                return tm__plan_fail_at(plan, a->at, TM_INVALID, a->name, "name what differs as an axis",
                                        "two attackers have this name, in %s and in %s", b->group, a->group);
        }
    return TM_OK;
}

/* A service trains on rows, by its own method: of the attacker it knows the rows and the options of training. Attacks
 * on weights find none there. */
static tm_status check_service(const tm_plan *plan, const tm__plan_arm *arm, size_t index) {
    const tm__plan_attack *attack = &plan->attacks[index];
    const tm__plan_step *step = arm->met[index];
    if (!arm->during.given || !step->given) return TM_OK;
    const tm_method *service = arm->during.method;
    if (service && !((service->required | service->optional) & TM_DATA_USER))
        return tm__plan_fail_at(plan, arm->at, TM_INVALID, arm->name, "name it as before",
                                "a service trains on a user's rows, and %s reads none", service->name);
    const char *method = step->method->name;
    bool rows = strcmp(method, "harmful-sft") == 0;
    if (!rows && strcmp(method, "identity-shift") != 0)
        return tm__plan_fail_at(plan, attack->at, TM_INVALID, attack->name,
                                "harmful-sft and identity-shift hand in rows",
                                "%s needs the weights, which the service of %s keeps", method, arm->name);
    if (rows && ((const tm_harmful_sft_options *)step->own)->vaccine > 0)
        return tm__plan_fail_at(plan, attack->at, TM_INVALID, attack->name, "leave out attack-vaccine",
                                "%s runs a method of the service on the attacker's rows", arm->name);
    return TM_OK;
}

/* ---- overlap ----------------------------------------------------------------------------------------------------- */

typedef struct overlap_check {
    const tm_plan *plan;
    char pairs[64][2][64]; /* compared already */
    size_t count;
} overlap_check;

/* Alignment data of the world is the developer's, who knows all that is forbidden. */
static bool is_alignment(const tm_plan *plan, const char *set) {
    return !tm__plan_find_data(plan, set) && strncmp(set, "align", 5) == 0;
}

static tm_status compare_sets(overlap_check *c, const tm__plan_arm *arm, const char *ours, const char *theirs) {
    const tm__plan_data *data = tm__plan_find_data(c->plan, ours);
    int world = c->plan->world_count ? 0 : -1;
    if (data && data->may_overlap) return TM_OK;
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->pairs[i][0], ours) == 0 && strcmp(c->pairs[i][1], theirs) == 0) return TM_OK;
    if (c->count < TM__COUNT(c->pairs)) {
        snprintf(c->pairs[c->count][0], sizeof c->pairs[0][0], "%s", ours);
        snprintf(c->pairs[c->count++][1], sizeof c->pairs[0][1], "%s", theirs);
    }
    tm_dataset *a = NULL, *b = NULL;
    tm_overlap overlap = {0};
    tm_status status = tm__plan_set(c->plan, world, ours, true, &a);
    if (status == TM_OK) status = tm__plan_set(c->plan, world, theirs, false, &b);
    if (status == TM_OK) status = tm_dataset_overlap(a, b, &overlap);
    tm_dataset_free(a);
    tm_dataset_free(b);
    if (status != TM_OK || overlap.prompts == 0) return status;
    return tm__plan_fail_at(c->plan, arm->at, TM_MISMATCH, arm->name,
                            data ? "give the defender rows of its own, or the data allow-overlap: true"
                                 : "give the defender a split of its own",
                            "%zu prompts of the defender's %s are the attacker's in %s", overlap.prompts, ours, theirs);
}

/* Harmful prompts only: retained benign rows are anybody's. */
static tm_status compare_step(overlap_check *c, const tm__plan_arm *arm, const tm__plan_step *step,
                              const char *harmful) {
    static const int roles[] = {TM__ROLE_HARMFUL, TM__ROLE_REFUSALS};
    char ours[64], theirs[64];
    for (size_t i = 0; step->given && i < TM__COUNT(roles); i++) {
        const char *list = step->sets[roles[i]];
        for (const char *at = list; list && tm__next_item(&at, ours);)
            for (const char *k = harmful; !is_alignment(c->plan, ours) && tm__next_item(&k, theirs);)
                TM__TRY(compare_sets(c, arm, ours, theirs));
    }
    return TM_OK;
}

static tm_status compare_arm(overlap_check *c, const tm__plan_arm *arm, const tm__plan_step *attack) {
    const char *harmful = attack->sets[TM__ROLE_HARMFUL];
    if (!harmful) return TM_OK;
    for (int i = arm->from; i >= 0; i = c->plan->stages[i].from)
        TM__TRY(compare_step(c, arm, &c->plan->stages[i].step, harmful));
    for (size_t i = 0; i < arm->before_count; i++) TM__TRY(compare_step(c, arm, &arm->before[i], harmful));
    for (size_t i = 0; i < arm->after_count; i++) TM__TRY(compare_step(c, arm, &arm->after[i], harmful));
    return compare_step(c, arm, &arm->during, harmful);
}

tm_status tm__plan_check(tm_plan *plan) {
    overlap_check overlaps = {.plan = plan};
    TM__TRY(check_names(plan));
    TM__TRY(tm__search_check(plan));
    for (size_t i = 0; i < plan->arm_count; i++)
        for (size_t k = 0; k < plan->attack_count; k++) {
            const tm__plan_arm *arm = &plan->arms[i];
            if (!arm->met[k]) continue;
            TM__TRY(check_service(plan, arm, k));
            TM__TRY(compare_arm(&overlaps, arm, arm->met[k]));
        }
    return TM_OK;
}
