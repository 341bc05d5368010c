/* results_events.c: training curves of a result store as TensorBoard event files: OUT/ARM/ATTACK/WORLD-SEED/events...,
 * a directory per cell, which TensorBoard shows as a run each; below OUT/PLAN where cells of several plans are asked
 * for. Pinned by tests/cli/cases/results.sh.
 */
#include "lab/events.h"
#include "lab/plan.h"
#include "lab/results.h"

#include <stdlib.h>

typedef struct export {
    const tm_results_options *o;
    const char *directory;
    char *run; /* the cell's directory; NULL: none yet */
    tm__string file;
    size_t runs;
    char *plan; /* of the cells so far; NULL: none yet */
    bool several;
}
export;

static tm_status flush(export *e) {
    if (!e->run) return TM_OK;
    char *path = tm__format("%s/events.out.tfevents.0.temper", e->run);
    tm_status status = path ? tm__make_directories(e->run) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, e->file.data, e->file.len);
    free(path);
    free(e->run);
    e->run = NULL;
    e->file.len = 0;
    return status;
}

/* A name as one folder. */
static void clean(char *name) {
    if (*name == '.') *name = '-';
    for (; *name; name++)
        if (*name == '/' || (unsigned char)*name < ' ') *name = '-';
}

static char *run_path(const export *e, const char *const *v) {
    char plan[TM__PLAN_NAME], arm[TM__PLAN_NAME], attack[TM__PLAN_NAME];
    snprintf(plan, sizeof plan, "%s", v[0]);
    snprintf(arm, sizeof arm, "%s", v[1]);
    snprintf(attack, sizeof attack, "%s", v[3]);
    clean(plan);
    clean(arm);
    clean(attack);
    return tm__format("%s%s%s/%s/%s/world-%s-seed-%s", e->directory, e->several ? "/" : "", e->several ? plan : "", arm,
                      attack, v[4], v[5]);
}

static tm_status see_plan(void *user, int columns, const char *const *names, const char *const *v) {
    export *e = user;
    (void)columns;
    (void)names;
    if (!tm__results_wanted(e->o, v)) return TM_OK;
    if (!e->plan) e->plan = tm__strdup(v[0]);
    if (!e->plan) return tm__fail_memory();
    e->several |= strcmp(e->plan, v[0]) != 0;
    return TM_OK;
}

enum { PHASE = 6, PART, STEP, LOSS, LR };

static tm_status add_step(void *user, int columns, const char *const *names, const char *const *v) {
    export *e = user;
    char tag[64];
    (void)columns;
    (void)names;
    if (!tm__results_wanted(e->o, v) || !v[LOSS]) return TM_OK;
    char *run = run_path(e, v);
    if (!run) return tm__fail_memory();
    bool same = e->run && strcmp(e->run, run) == 0, ok = true;
    if (same) {
        free(run);
    } else {
        tm_status status = flush(e);
        if (status != TM_OK) {
            free(run);
            return status;
        }
        e->run = run;
        e->runs++;
        ok = tm__events_begin(&e->file, 0);
    }
    int64_t step = strtoll(v[STEP], NULL, 10);
    snprintf(tag, sizeof tag, "%s-%s/loss", v[PART], v[PHASE]);
    ok = ok && tm__events_add(&e->file, 0, step, tag, strtod(v[LOSS], NULL));
    snprintf(tag, sizeof tag, "%s-%s/lr", v[PART], v[PHASE]);
    if (v[LR]) ok = ok && tm__events_add(&e->file, 0, step, tag, strtod(v[LR], NULL));
    return ok ? TM_OK : tm__fail_memory();
}

tm_status tm_results_events(const char *directory, const tm_results_options *options, const char *out, size_t *runs) {
    static const char sql[] = "SELECT plan, arm, grp, attack, world, seed, phase, part, step, loss, lr FROM cell JOIN "
                              "metric USING (key) ORDER BY plan, place, part, step";
    tm_results_options plain;
    tm_options_default(tm_results_option_table, &plain);
    tm__outdir made = {0};
    tm__store *store;
    TM__TRY(tm__store_open(directory, false, &store));
    tm_status status = tm__outdir_begin(&made, out, false);
    export e = {.o = options ? options : &plain, .directory = made.aside};
    if (status == TM_OK)
        status = tm__store_query(store, "SELECT plan, arm, grp, attack, world, seed FROM cell", NULL, 0, see_plan, &e);
    if (status == TM_OK) status = tm__store_query(store, sql, NULL, 0, add_step, &e);
    if (status == TM_OK) status = flush(&e);
    if (status == TM_OK && e.runs == 0)
        status = tm__fail(TM_NOT_FOUND, directory, "steps", "cells of --known have none", "no training is recorded");
    if (status == TM_OK)
        status = tm__outdir_commit(&made);
    else
        tm__outdir_abandon(&made);
    free(e.plan);
    free(e.run);
    tm__string_free(&e.file);
    tm__store_close(store);
    *runs = e.runs;
    return status;
}
