/* plan_search.c: reads `search:` of a group of attacks and makes its trials.
 *
 *   search: {method: grid|random|halving, space: {OPTION: [VALUES] or {log: [A, B]} or {uniform: [A, B]} or
 *            {int: [A, B]}}, budget: {trials: N} or {steps: N}, seed, eta, epsilon, ability, threshold}
 *
 * A range may also be written log(A, B), in quotes where YAML's commas would cut it. Grid: every combination of lists.
 * Random: values drawn from Philox streams of (seed, trial), so that they are the same for every defence and a larger
 * budget begins with the trials of a smaller. Halving (Jamieson and Talwalkar 2016): trials are drawn like that and
 * trained for steps / eta^(R - 1 - r) in rung r of R, of which 1 / eta go on to the next; R as many as the number of
 * trials allows. Values are written with three digits, and what is written is what is trained with.
 */
#include "lab/plan_read.h"
#include "lab/search.h"

#include <stdlib.h>

typedef struct dimension {
    const char *name;
    yaml_node_t *list; /* values; NULL: a range */
    char kind[16];     /* of the range: log, uniform, int */
    double low, high;
    yaml_node_t *node;
} dimension;

typedef struct space {
    dimension list[TM__PLAN_AXES];
    size_t count;
} space;

/* ---- space ------------------------------------------------------------------------------------------------------- */

static tm_status check_range(tm__reader *r, dimension *d) {
    static const char *const kinds[] = {"log", "uniform", "int", NULL};
    tm__nearest best;
    if (!kinds[tm__name_in(kinds, d->kind, &best)])
        return tm__plan_unknown(r, d->node, &best, "log, uniform, int", "there is no range", d->kind);
    if (!(d->low < d->high) || (strcmp(d->kind, "log") == 0 && d->low <= 0))
        return tm__plan_wrong(r, d->node, "[LOW, HIGH], of log above 0", "is no range of", d->name);
    return TM_OK;
}

static tm_status read_dimension(tm__reader *r, tm__pair p, dimension *d) {
    static const char hint[] = "[VALUES], {log: [LOW, HIGH]}, or \"log(LOW, HIGH)\" in quotes";
    *d = (dimension){.name = tm__node_text(p.key), .node = p.value};
    if (tm__node_items(p.value)) {
        d->list = p.value;
        return TM_OK;
    }
    const char *text = tm__node_text(p.value);
    char closing = 0;
    if (text && sscanf(text, "%15[a-z](%lf ,%lf %c", d->kind, &d->low, &d->high, &closing) == 4 && closing == ')')
        return check_range(r, d);
    if (p.value->type != YAML_MAPPING_NODE || tm__node_pairs(p.value) != 1)
        return tm__plan_wrong(r, p.value, hint, "is no list of values and no range:", d->name);
    tm__pair range = tm__node_pair(r, p.value, 0);
    if (!tm__node_text(range.key) || tm__node_items(range.value) != 2)
        return tm__plan_wrong(r, p.value, hint, "is no range:", d->name);
    snprintf(d->kind, sizeof d->kind, "%s", tm__node_text(range.key));
    TM__TRY(tm__node_real(r, tm__node_item(r, range.value, 0), d->name, -1e300, 1e300, &d->low));
    TM__TRY(tm__node_real(r, tm__node_item(r, range.value, 1), d->name, -1e300, 1e300, &d->high));
    return check_range(r, d);
}

static tm_status read_space(tm__reader *r, const yaml_node_t *map, bool grid, space *s) {
    *s = (space){0};
    if (!map) return TM_OK;
    TM__TRY(tm__node_map(r, map, "space"));
    if (tm__node_pairs(map) > TM__PLAN_AXES) return tm__plan_wrong(r, map, "6 at most", "too many options", NULL);
    for (size_t i = 0; i < tm__node_pairs(map); i++) {
        dimension *d = &s->list[s->count++];
        TM__TRY(read_dimension(r, tm__node_pair(r, map, i), d));
        if (grid && !d->list) return tm__plan_wrong(r, d->node, "a list", "a grid needs values, not a range:", d->name);
    }
    return TM_OK;
}

/* A value as a node of its own: adding one to the document would move all others. */
typedef struct drawn {
    yaml_node_t node;
    char text[64];
} drawn;

/* The index-th value of a list; SIZE_MAX: a drawn one. */
static const yaml_node_t *value_of(tm__reader *r, const dimension *d, size_t index, tm__rng *rng, drawn *own) {
    if (d->list)
        return tm__node_item(r, d->list, index != SIZE_MAX ? index : tm__rng_below(rng, tm__node_items(d->list)));
    double u = tm__rng_uniform(rng);
    if (strcmp(d->kind, "int") == 0)
        snprintf(own->text, sizeof own->text, "%.0f", floor(d->low + u * (d->high - d->low + 1)));
    else if (strcmp(d->kind, "log") == 0)
        snprintf(own->text, sizeof own->text, "%.3g", exp(log(d->low) + u * (log(d->high) - log(d->low))));
    else
        snprintf(own->text, sizeof own->text, "%.3g", d->low + u * (d->high - d->low));
    own->node = (yaml_node_t){.type = YAML_SCALAR_NODE, .start_mark = d->node->start_mark};
    own->node.data.scalar.value = (yaml_char_t *)own->text;
    own->node.data.scalar.length = strlen(own->text);
    return &own->node;
}

/* ---- trials ------------------------------------------------------------------------------------------------------ */

typedef struct making {
    tm__reader *r;
    tm__pair p;
    const tm__plan_attack *group;
    tm__plan_search *search;
    const space *space;
    bool named;
} making;

/* Of lists; more than there may be count as one more. */
static size_t combinations(const making *m) {
    size_t n = 1;
    for (size_t i = 0; i < m->space->count; i++)
        n = TM__MIN(n * tm__node_items(m->space->list[i].list), (size_t)TM__PLAN_PRODUCT + 1);
    return n;
}

static int64_t rung_steps(const tm__plan_search *s, int64_t full, size_t rung) {
    double share = pow((double)s->eta, (double)(s->rungs - 1 - rung));
    return (int64_t)fmax(1, floor((double)full / share + 0.5));
}

/* Adds a trial as an attacker; *steps: of its training. */
static tm_status add_trial(const making *m, size_t trial, size_t rung, int64_t *steps) {
    tm_plan *plan = m->r->plan;
    tm__plan_attack made = *m->group;
    tm__rng rng = tm__rng_make((uint64_t)m->search->seed, tm__stream(TM__STREAM_SEARCH, (uint32_t)trial));
    size_t stride = m->search->method == TM__SEARCH_GRID ? combinations(m) : 1;
    char name[32];
    made.search = (int)plan->search_count;
    made.trial = (int)trial;
    made.rung = (int)rung;
    TM__TRY(tm__step_copy(m->r, &made.step));
    snprintf(name, sizeof name, "t%02zu", trial + 1);
    TM__TRY(tm__label_add(m->r, m->p.key, made.name, "", made.group));
    TM__TRY(tm__label_add(m->r, m->p.key, made.name, "", name));
    for (size_t i = 0; i < m->space->count; i++) {
        const dimension *d = &m->space->list[i];
        size_t index = SIZE_MAX;
        drawn own;
        if (m->search->method == TM__SEARCH_GRID) {
            stride /= tm__node_items(d->list);
            index = trial / stride % tm__node_items(d->list);
        }
        const yaml_node_t *value = value_of(m->r, d, index, &rng, &own);
        TM__TRY(tm__step_option(m->r, &made.step, d->name, value));
        TM__TRY(tm__label_add(m->r, value, made.name, d->name, tm__node_text(value)));
    }
    if (m->search->method == TM__SEARCH_HALVING) {
        made.step.train.steps = rung_steps(m->search, made.step.train.steps, rung);
        snprintf(name, sizeof name, "%lld", (long long)made.step.train.steps);
        TM__TRY(tm__label_add(m->r, m->p.key, made.name, "steps", name));
    }
    *steps = made.step.train.steps;
    TM__TRY(tm__attack_check(m->r, m->p.value, m->named, &made.step));
    if (!made.step.given)
        return tm__plan_wrong(m->r, m->p.value, "harmful: SET", "there is nothing to search:", made.group);
    if (!tm__grow((void **)&plan->attacks, &plan->attack_cap, plan->attack_count + 1, sizeof *plan->attacks))
        return tm__fail_memory();
    plan->attacks[plan->attack_count++] = made;
    return TM_OK;
}

size_t tm__search_width(const tm__plan_search *s, size_t rung) {
    size_t n = s->count;
    for (size_t i = 0; i < rung; i++) n = TM__MAX(n / (size_t)s->eta, (size_t)1);
    return n;
}

static void set_rungs(tm__plan_search *s, size_t count) {
    s->count = count;
    s->rungs = 1;
    for (size_t n = count; s->method == TM__SEARCH_HALVING && n >= (size_t)s->eta; n /= (size_t)s->eta) s->rungs++;
}

/* Steps of a halving that begins with so many trials. */
static int64_t halving_steps(tm__plan_search *s, size_t count, int64_t full) {
    int64_t sum = 0;
    set_rungs(s, count);
    for (size_t k = 0; k < s->rungs; k++) sum += (int64_t)tm__search_width(s, k) * rung_steps(s, full, k);
    return sum;
}

/* How many trials the budget pays for. */
static tm_status count_trials(const making *m, const yaml_node_t *budget, size_t *count) {
    tm__plan_search *s = m->search;
    int64_t full = m->group->step.train.steps;
    *count = s->trials ? (size_t)s->trials : TM__PLAN_PRODUCT;
    if (s->method == TM__SEARCH_GRID) {
        size_t all = combinations(m);
        if (s->trials && all > *count)
            return tm__plan_wrong(m->r, budget, "fewer values, or method: random",
                                  "the grid has more trials than the budget of", m->group->group);
        *count = all;
    } else if (s->method == TM__SEARCH_HALVING && s->steps) {
        for (*count = 0; *count < TM__PLAN_PRODUCT && halving_steps(s, *count + 1, full) <= s->steps;) ++*count;
    }
    if (*count == 0 || (s->method == TM__SEARCH_HALVING && *count < (size_t)s->eta))
        return tm__plan_wrong(m->r, budget, "more steps or trials", "the budget pays for too few trials of",
                              m->group->group);
    return *count <= TM__PLAN_PRODUCT ? TM_OK : tm__plan_wrong(m->r, budget, "4096 at most", "too many trials", NULL);
}

static tm_status make_trials(const making *m, const yaml_node_t *budget) {
    tm__plan_search *s = m->search;
    size_t count, made = 0;
    int64_t spent = 0, steps;
    TM__TRY(count_trials(m, budget, &count));
    set_rungs(s, count);
    s->first = m->r->plan->attack_count;
    for (size_t rung = 1; rung < s->rungs; rung++)
        if (rung_steps(s, m->group->step.train.steps, rung) == rung_steps(s, m->group->step.train.steps, rung - 1))
            return tm__plan_wrong(m->r, budget, "more steps of the group, or a smaller budget",
                                  "two rungs of the halving would have the same steps, of", m->group->group);
    for (size_t rung = 0; rung < s->rungs; rung++)
        for (size_t i = 0; i < count; i++) {
            TM__TRY(add_trial(m, i, rung, &steps));
            spent += steps;
            if (s->method == TM__SEARCH_HALVING || !s->steps) continue;
            if (spent > s->steps) { /* the trial that is not paid for any more */
                m->r->plan->attack_count--;
                count = i;
                break;
            }
            made++;
        }
    if (s->method != TM__SEARCH_HALVING && s->steps) s->count = made;
    if (s->count == 0)
        return tm__plan_wrong(m->r, budget, "more steps", "the budget pays for no trial of", m->group->group);
    if (s->method == TM__SEARCH_GRID && s->count < combinations(m))
        return tm__plan_wrong(m->r, budget, "fewer values, or method: random",
                              "the grid has more steps than the budget of", m->group->group);
    return TM_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static tm_status read_budget(tm__reader *r, yaml_node_t *node, tm__plan_search *s) {
    static const char *const known[] = {"trials", "steps", NULL};
    TM__TRY(tm__node_map(r, node, "budget"));
    TM__TRY(tm__node_keys(r, node, known, "trials, steps", "a search's budget has no"));
    const yaml_node_t *trials = tm__node_find(r, node, "trials"), *steps = tm__node_find(r, node, "steps");
    if (!trials == !steps)
        return tm__plan_wrong(r, node, "{trials: 27} or {steps: 5000}", "either trials or steps are given", NULL);
    if (trials) TM__TRY(tm__node_int(r, trials, "trials", 1, TM__PLAN_PRODUCT, &s->trials));
    return steps ? tm__node_int(r, steps, "steps", 1, INT64_MAX, &s->steps) : TM_OK;
}

static tm_status read_numbers(tm__reader *r, yaml_node_t *map, tm__plan_search *s) {
    const yaml_node_t *seed = tm__node_find(r, map, "seed"), *eta = tm__node_find(r, map, "eta");
    const yaml_node_t *epsilon = tm__node_find(r, map, "epsilon"), *ability = tm__node_find(r, map, "ability");
    const yaml_node_t *threshold = tm__node_find(r, map, "threshold");
    if (seed) TM__TRY(tm__node_int(r, seed, "seed", 0, INT64_MAX, &s->seed));
    if (eta) TM__TRY(tm__node_int(r, eta, "eta", 2, 64, &s->eta));
    if (threshold) TM__TRY(tm__node_real(r, threshold, "threshold", -1e300, 1e300, &s->threshold));
    if (epsilon) TM__TRY(tm__node_real(r, epsilon, "epsilon", 0, 1e300, &s->epsilon));
    if (ability) TM__TRY(tm__score_read(r, ability, &s->ability));
    if (epsilon && !s->ability)
        return tm__plan_wrong(r, epsilon, "ability: SCORE, here or in scores:", "no score is named that may fall by",
                              "epsilon");
    return TM_OK;
}

tm_status tm__search_read(tm__reader *r, tm__pair p, yaml_node_t *map, const tm__plan_attack *group, bool named) {
    static const char *const known[] = {"method",  "space",     "budget",  "seed", "eta",
                                        "epsilon", "threshold", "ability", NULL};
    static const char *const methods[] = {"grid", "random", "halving", NULL};
    tm_plan *plan = r->plan;
    tm__plan_search search = {
        .group = group->group, .seed = 1, .eta = 3, .epsilon = NAN, .threshold = NAN, .ability = plan->ability};
    tm__nearest best;
    space options;
    TM__TRY(tm__node_map(r, map, "search"));
    TM__TRY(tm__node_keys(r, map, known, "method, space, budget, seed, eta, epsilon, ability, threshold",
                          "a search has no"));
    yaml_node_t *method = tm__node_find(r, map, "method"), *budget = tm__node_find(r, map, "budget");
    if (!plan->harm)
        return tm__plan_wrong(r, map, "scores: {harm: SCORE}", "nothing says which score is the harm to search for",
                              NULL);
    if (!method || !tm__node_text(method))
        return tm__plan_wrong(r, method ? method : map, "method: halving", "the search names no method", NULL);
    search.method = (int)tm__name_in(methods, tm__node_text(method), &best);
    if (!methods[search.method])
        return tm__plan_unknown(r, method, &best, "grid, random, halving", "there is no search", tm__node_text(method));
    if (!budget)
        return tm__plan_wrong(r, map, "budget: {trials: 27} or {steps: 5000}", "the search has no budget", NULL);
    TM__TRY(read_budget(r, budget, &search));
    TM__TRY(read_numbers(r, map, &search));
    TM__TRY(read_space(r, tm__node_find(r, map, "space"), search.method == TM__SEARCH_GRID, &options));
    if (!options.count) return tm__plan_wrong(r, map, "space: {lr: [VALUES]}", "the search has no space", NULL);
    bool varied = false;
    for (size_t i = 0; i < options.count; i++) varied |= strcmp(options.list[i].name, "steps") == 0;
    if ((search.steps || search.method == TM__SEARCH_HALVING) && !group->step.train.steps && !varied)
        return tm__plan_wrong(r, p.value, "steps: N", "the search counts steps, and none are named by", group->group);
    if (search.method == TM__SEARCH_HALVING && varied)
        return tm__plan_wrong(r, map, "steps: N beside search", "a halving sets the steps itself, of", group->group);
    const making m = {r, p, group, &search, &options, named};
    TM__TRY(make_trials(&m, budget));
    if (!tm__grow((void **)&plan->searches, &plan->search_cap, plan->search_count + 1, sizeof *plan->searches))
        return tm__fail_memory();
    plan->searches[plan->search_count++] = search;
    return TM_OK;
}
