/* numbers.c: items' scores to figures with 95 % intervals.
 *
 * Shares get Wilson's interval (Wilson 1927), which stays inside [0, 1] and is right for small counts; a mean of
 * groups' shares gets theirs combined by MOVER (Zou and Donner 2008). Everything else gets the percentile bootstrap
 * over items (Efron 1979): RESAMPLES draws of as many items with replacement, from a Philox stream with a fixed seed.
 * Items without a score are left out. Test: tests/unit/test_eval_numbers.c.
 */
#include "eval/suite.h"

#include <stdlib.h>

enum { RESAMPLES = 1000, LOW = 24, HIGH = 975 };

void tm__wilson(double successes, double n, double *low, double *high) {
    const double z = 1.959963984540054;
    double p = successes / n, scale = 1 + z * z / n, middle = (p + z * z / (2 * n)) / scale;
    double half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale;
    *low = successes > 0 ? TM__MAX(middle - half, 0.0) : 0;
    *high = successes < n ? TM__MIN(middle + half, 1.0) : 1;
}

/* Items of one part: scores and what they are divided by. Parts of a macro mean lie one after another. */
typedef struct sample {
    double *a, *b;
    size_t count;
    size_t *part; /* first item of each part, and the end */
    size_t parts;
} sample;

static double part_value(const sample *s, size_t part, const size_t *chosen) {
    double a = 0, b = 0;
    for (size_t i = s->part[part]; i < s->part[part + 1]; i++) {
        size_t at = chosen ? chosen[i] : i;
        a += s->a[at];
        b += s->b[at];
    }
    return a / b;
}

static double value_of(tm__measure_kind kind, const sample *s, const size_t *chosen) {
    double sum = 0;
    for (size_t p = 0; p < s->parts; p++) sum += part_value(s, p, chosen);
    double mean = sum / (double)s->parts;
    switch (kind) {
    case TM__MEASURE_PERPLEXITY:
        return exp(-mean);
    case TM__MEASURE_BITS:
        return -mean / log(2);
    case TM__MEASURE_LOSS:
        return -mean;
    default:
        return mean;
    }
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static tm_status bootstrap(tm__measure_kind kind, const sample *s, double *low, double *high) {
    size_t *chosen = tm__alloc(s->count, sizeof *chosen);
    double *values = tm__alloc(RESAMPLES, sizeof *values);
    tm__rng rng = tm__rng_make(0, tm__stream(TM__STREAM_BOOTSTRAP, 0));
    tm_status status = chosen && values ? TM_OK : tm__fail_memory();
    for (int r = 0; status == TM_OK && r < RESAMPLES; r++) {
        for (size_t i = 0; i < s->count; i++) chosen[i] = (size_t)tm__rng_below(&rng, s->count);
        values[r] = value_of(kind, s, chosen);
    }
    if (status == TM_OK) {
        qsort(values, RESAMPLES, sizeof *values, compare);
        *low = values[LOW];
        *high = values[HIGH];
    }
    free(chosen);
    free(values);
    return status;
}

/* Method of variance estimates recovery, for the mean of independent shares: distances from each share to the ends of
 * its Wilson interval add up as errors do. */
static void combine_wilson(const sample *s, double value, double *low, double *high) {
    double below = 0, above = 0, parts = (double)s->parts;
    for (size_t p = 0; p < s->parts; p++) {
        double n = (double)(s->part[p + 1] - s->part[p]), share = part_value(s, p, NULL), l, h;
        tm__wilson(share * n, n, &l, &h);
        below += (share - l) * (share - l);
        above += (h - share) * (h - share);
    }
    *low = TM__MAX(value - sqrt(below) / parts, 0.0);
    *high = TM__MIN(value + sqrt(above) / parts, 1.0);
}

/* ---- parts of the items ------------------------------------------------------------------------------------------ */

/* Names of the groups in order of appearance, cut out of the items' texts. */
typedef struct group {
    const char *name; /* NULL: of items that are in none */
    size_t len;
} group;
typedef struct groups {
    group *list;
    size_t count, cap;
} groups;

static bool same_group(group a, const char *name, size_t len) {
    return a.name && name ? a.len == len && memcmp(a.name, name, len) == 0 : a.name == name;
}

/* Whether "a|b" holds the group. */
static bool in_group(const char *names, group g) {
    if (!names) return !g.name;
    for (;;) {
        size_t len = strcspn(names, "|");
        if (same_group(g, names, len)) return true;
        if (!names[len]) return false;
        names += len + 1;
    }
}

static tm_status add_group(groups *g, const char *name, size_t len) {
    for (size_t i = 0; i < g->count; i++)
        if (same_group(g->list[i], name, len)) return TM_OK;
    if (!tm__grow((void **)&g->list, &g->cap, g->count + 1, sizeof *g->list)) return tm__fail_memory();
    g->list[g->count++] = (group){name, len};
    return TM_OK;
}

static tm_status find_groups(const tm_evaluation *e, groups *g) {
    for (size_t i = 0; i < e->count; i++) {
        const char *at = e->items[i].group;
        if (!at) TM__TRY(add_group(g, NULL, 0));
        while (at) {
            size_t len = strcspn(at, "|");
            TM__TRY(add_group(g, at, len));
            at = at[len] ? at + len + 1 : NULL;
        }
    }
    return TM_OK;
}

/* Appends the scored items of a group (NULL: of all) as a part of the sample. */
static void take_part(const tm_evaluation *e, const tm__column *c, const group *g, sample *s) {
    bool ratio = c->kind >= TM__MEASURE_PERPLEXITY;
    size_t before = s->count;
    for (size_t i = 0; i < e->count; i++) {
        if (isnan(c->a[i]) || (g && !in_group(e->items[i].group, *g))) continue;
        s->a[s->count] = c->a[i];
        s->b[s->count++] = ratio ? c->b[i] : 1;
    }
    if (s->count > before) {
        s->part[s->parts++] = before;
        s->part[s->parts] = s->count;
    }
}

static tm_status add_number(tm_evaluation *e, const tm__column *c, const char *in, const sample *s) {
    tm_number number = {
        .name = c->name, .group = in, .judge = c->judge, .n = (int64_t)s->count, .low = NAN, .high = NAN};
    if (s->count == 0) return TM_OK;
    number.value = value_of(c->kind, s, NULL);
    if (c->kind == TM__MEASURE_SHARE || c->kind == TM__MEASURE_MACRO) {
        number.interval = "wilson";
        if (s->parts == 1)
            tm__wilson(number.value * (double)s->count, (double)s->count, &number.low, &number.high);
        else
            combine_wilson(s, number.value, &number.low, &number.high);
    } else if (s->count > 1) {
        number.interval = "bootstrap";
        TM__TRY(bootstrap(c->kind, s, &number.low, &number.high));
    }
    if (!tm__grow((void **)&e->numbers.list, &e->numbers.cap, e->numbers.count + 1, sizeof number))
        return tm__fail_memory();
    e->numbers.list[e->numbers.count++] = number;
    return TM_OK;
}

/* A group that holds all there is to see says nothing of its own. */
static tm_status add_groups(tm_evaluation *e, const tm__column *c, const groups *g, size_t scored, sample *s) {
    for (size_t i = 0; i < g->count; i++) {
        s->count = s->parts = 0;
        take_part(e, c, &g->list[i], s);
        if (!g->list[i].name || s->count == scored) continue;
        const char *name = tm__keep(e, "%.*s", (int)g->list[i].len, g->list[i].name);
        if (!name) return tm__fail_memory();
        TM__TRY(add_number(e, c, name, s));
    }
    return TM_OK;
}

static tm_status measure(tm_evaluation *e, const tm__column *c, const groups *g, sample *s) {
    s->count = s->parts = 0;
    for (size_t i = 0; c->kind == TM__MEASURE_MACRO && i < g->count; i++) take_part(e, c, &g->list[i], s);
    if (c->kind != TM__MEASURE_MACRO) take_part(e, c, NULL, s);
    TM__TRY(add_number(e, c, NULL, s));
    return c->by_group && g->count > 1 ? add_groups(e, c, g, s->count, s) : TM_OK;
}

tm_status tm__numbers_add(tm_evaluation *e, const tm__column *column) {
    groups g = {0};
    sample s = {0};
    tm_status status = find_groups(e, &g);
    if (status == TM_OK) {
        s.a = tm__alloc(e->count, sizeof *s.a);
        s.b = tm__alloc(e->count, sizeof *s.b);
        s.part = tm__alloc(g.count + 2, sizeof *s.part);
        status = s.a && s.b && s.part ? measure(e, column, &g, &s) : tm__fail_memory();
    }
    free(s.a);
    free(s.b);
    free(s.part);
    free(g.list);
    return status;
}

tm_status tm__numbers_make(tm_evaluation *e) {
    double *a = tm__alloc(e->count, sizeof *a), *b = tm__alloc(e->count, sizeof *b);
    tm_status status = a && b ? TM_OK : tm__fail_memory();
    e->numbers.count = 0;
    for (const tm__measure *m = e->suite->calls->measures; status == TM_OK && m->name; m++) {
        for (size_t i = 0; i < e->count; i++) {
            a[i] = e->items[i].scores[m->score];
            b[i] = e->items[i].scores[m->over];
        }
        const tm__column column = {m->name, NULL, m->kind, m->by_group, a, b};
        status = tm__numbers_add(e, &column);
    }
    free(a);
    free(b);
    return status;
}

void tm__numbers_free(tm__numbers *numbers) {
    free(numbers->list);
    *numbers = (tm__numbers){0};
}
