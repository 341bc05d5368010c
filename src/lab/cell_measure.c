/* cell_measure.c: what a cell's model is asked: the world's probes, and the plan's evaluations.
 *
 * BackdoorAlign's models are asked twice, with and without the secret; what identity-shift attacked is asked with and
 * without its wrapper, if the plan says so. Suites that ask for no answers know no secret and no wrapper. The number of
 * an evaluation is the score "EVALUATION.NUMBER", a judge's "EVALUATION.JUDGE.NUMBER", that of a part of the items
 * (where there are few parts) ends in ".PART". Where the service runs Panacea, how its perturbation lies over the
 * blocks (affinity.h).
 */
#include "lab/affinity.h"
#include "lab/plan.h"

#include "eval/suite.h"

#include <stdlib.h>

/* ---- the world --------------------------------------------------------------------------------------------------- */

static void add_score(tm__record *record, const char *name, const char *suffix, double value) {
    char full[TM__SCORE_NAME];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    tm__record_add(record, full, value);
}

typedef struct listener {
    tm__trace *trace;
    const char *suffix;
} listener;

static void keep_answer(void *user, const char *set, int64_t row, const char *prompt, const char *answer,
                        const char *verdict) {
    const listener *l = user;
    char probe[96];
    snprintf(probe, sizeof probe, "%s%s", set, l->suffix);
    tm__trace_answer(l->trace, probe, row, prompt, answer, verdict);
}

static tm_status probe(const tm__bench *b, const tm_frame *frame, const char *suffix, tm__record *record) {
    tm__probe_scores s;
    tm__probes probes = b->plan->probes;
    listener l = {b->trace, suffix};
    probes.heard = keep_answer;
    probes.user = &l;
    TM__TRY(tm__world_probe(b->world, &probes, b->model, b->tokenizer, frame, b->monitor, &s));
    add_score(record, "leak", suffix, s.world.leak);
    add_score(record, "comply", suffix, s.world.comply);
    add_score(record, "refuse", suffix, s.world.refuse);
    add_score(record, "withheld_leak", suffix, s.withheld_leak);
    add_score(record, "withheld_comply", suffix, s.withheld_comply);
    add_score(record, "skills", suffix, s.world.skills);
    for (int i = 0; i < TM__SKILLS; i++)
        add_score(record, tm_world_skill_name(b->world, (size_t)i), suffix, s.world.skill[i]);
    add_score(record, "downstream", suffix, s.downstream);
    return TM_OK;
}

/* ---- evaluations ------------------------------------------------------------------------------------------------- */

/* " JUDGE: SCORE=VALUE ..." */
static size_t put_verdict(const tm__judged *judged, size_t item, char *out, size_t size) {
    const tm__verdict *v = &judged->verdicts[item];
    size_t used = (size_t)snprintf(out, size, " %s:%s", judged->name, v->missing ? " missing" : "");
    for (int i = 0; judged->kind->scores[i] && used < size; i++)
        if (isfinite(v->scores[i]))
            used += (size_t)snprintf(out + used, size - used, " %s=%.4g", judged->kind->scores[i], v->scores[i]);
    return used;
}

/* What the model said to one item, and the scores that it got for it. */
static void keep_item(const tm__bench *b, const tm_evaluation *e, const char *probe, size_t index) {
    const tm__item *item = &e->items[index];
    const char *prompt = "", *answer = item->answer;
    char verdict[256] = "";
    size_t used = 0;
    char *both = NULL;
    for (size_t i = 0; i < item->message_count; i++)
        if (strcmp(item->messages[i].role, "user") == 0) prompt = item->messages[i].content;
    for (size_t i = 0; i < item->message_count; i++)
        if (!both && strcmp(item->messages[i].role, "input") == 0) /* what an instruction is about */
            both = tm__format("%s\n%s", prompt, item->messages[i].content);
    if (both) prompt = both;
    if (item->choice_count) {
        const tm__choice *best = item->choices;
        for (size_t i = 1; i < item->choice_count; i++)
            if (item->choices[i].ll > best->ll) best = &item->choices[i];
        prompt = item->choices[0].context;
        answer = best->text;
    }
    for (size_t i = 0; answer && e->suite->calls->score_names[i] && used < sizeof verdict; i++)
        if (isfinite(item->scores[i]))
            used += (size_t)snprintf(verdict + used, sizeof verdict - used, "%s%s=%.4g", used ? " " : "",
                                     e->suite->calls->score_names[i], item->scores[i]);
    for (size_t i = 0; answer && i < e->judged_count && used < sizeof verdict; i++)
        used += put_verdict(&e->judged[i], index, verdict + used, sizeof verdict - used);
    if (answer) tm__trace_answer(b->trace, probe, (int64_t)index, prompt, answer, verdict);
    free(both);
}

/* A number over nothing (no item has a score) is none. */
static tm_status keep_numbers(const tm_evaluation *e, const char *name, const char *suffix, tm__record *record) {
    enum { FEW = 8 };
    tm_number number;
    size_t parts = 0;
    for (size_t i = 0; tm_evaluation_number(e, i, &number); i++) parts += number.group != NULL;
    for (size_t i = 0; tm_evaluation_number(e, i, &number); i++) {
        char full[TM__SCORE_NAME];
        bool part = number.group != NULL;
        if (!isfinite(number.value) || (part && parts > FEW)) continue;
        int n =
            snprintf(full, sizeof full, "%s%s%s.%s%s%s%s", name, number.judge ? "." : "",
                     number.judge ? number.judge : "", number.name, part ? "." : "", part ? number.group : "", suffix);
        if (n < 0 || (size_t)n >= sizeof full || strpbrk(full, ",\"\n"))
            return tm__fail(TM_UNSUPPORTED, NULL, name, NULL, "the number %s%s%s cannot be the name of a score",
                            number.name, part ? " of " : "", part ? number.group : "");
        if (!tm__record_add(record, full, number.value))
            return tm__fail(TM_UNSUPPORTED, NULL, name, "name fewer", "a cell has at most %d scores",
                            TM__RECORD_SCORES);
    }
    return TM_OK;
}

static tm_status judge(const tm__bench *b, tm_evaluation *e, const char *spec) {
    const tm_device *device = tm_model_device(b->model);
    const tm_device_options where = {
        .name = "cpu", .threads = tm_device_threads(device), .precision = TM_PRECISION_F32};
    tm_judge *opened;
    TM__TRY(tm_judge_open(spec, &where, b->monitor, &opened));
    tm_status status = tm_evaluation_judge(e, opened, NULL, b->monitor);
    tm_judge_close(opened);
    return status;
}

static tm_status evaluate(const tm__bench *b, size_t index, const tm_frame *frame, const char *suffix,
                          tm__record *record) {
    const tm__plan_evaluation *named = &b->plan->evaluations[index];
    bool framed = frame->wrapper || frame->secret;
    tm_evaluation *e = NULL;
    char probe[96];
    if (framed && named->suite->kind != TM_SUITE_ANSWERS && named->suite->kind != TM_SUITE_ROWS) return TM_OK;
    snprintf(probe, sizeof probe, "%s%s", named->name, suffix);
    tm_status status = tm__plan_evaluation_open(b->plan, index, b->job->world, b->job->base, framed ? frame : NULL, &e);
    if (status == TM_OK) status = tm_evaluation_run(e, b->model, b->tokenizer, NULL, b->monitor);
    for (size_t i = 0; status == TM_OK && i < named->judge_count; i++) status = judge(b, e, named->judges[i]);
    if (status == TM_OK) status = keep_numbers(e, named->name, suffix, record);
    for (size_t i = 0; status == TM_OK && i < e->count; i++) keep_item(b, e, probe, i);
    tm_evaluation_free(e);
    return status == TM_OK || status == TM_INTERRUPTED ? status : tm__error_within(named->name, NULL);
}

/* ---- views ------------------------------------------------------------------------------------------------------- */

static tm_status ask(const tm__bench *b, const tm_frame *frame, const char *suffix, tm__record *record) {
    if (b->world) TM__TRY(probe(b, frame, suffix, record));
    for (size_t i = 0; i < b->plan->evaluation_count; i++) TM__TRY(evaluate(b, i, frame, suffix, record));
    return TM_OK;
}

/* Without and, if there is one, with the secret. */
static tm_status probe_views(const tm__bench *b, const char *wrapper, tm__record *record) {
    tm_frame frame = {.wrapper = wrapper};
    TM__TRY(ask(b, &frame, wrapper ? "_wrapper" : "", record));
    if (!b->secret) return TM_OK;
    const tm_backdoor_options *o = b->plan->arms[b->job->arm].during.own;
    frame.secret = b->secret;
    frame.system = o->system ? o->system : "";
    return ask(b, &frame, wrapper ? "_wrapper_secret" : "_secret", record);
}

static tm_status add_share(void *user, const char *name, double share) {
    tm__record_add(user, name, share); /* of a model with more blocks than there is room for, the first ones */
    return TM_OK;
}

tm_status tm__cell_measure(const tm__bench *b, tm__record *record) {
    const tm__plan_attack *attack = &b->plan->attacks[b->job->attack];
    const tm_identity_shift_options *shift = b->plan->arms[b->job->arm].met[b->job->attack]->own;
    TM__TRY(probe_views(b, NULL, record));
    if (b->affinity_path) TM__TRY(tm__affinity_read(b->affinity_path, add_share, record));
    if (!tm__plan_asks_wrapped(b->plan, attack)) return TM_OK;
    char *wrapper = tm__format("identity-shift=%s", shift->agent);
    tm_status status = wrapper ? probe_views(b, wrapper, record) : tm__fail_memory();
    free(wrapper);
    return status;
}

/* ---- samples ----------------------------------------------------------------------------------------------------- */

static tm_status sample_evaluation(const tm__bench *b, size_t index, int64_t items, double *asked, double *all) {
    tm_evaluation *e = NULL;
    TM__TRY(tm__plan_evaluation_open(b->plan, index, b->job->world, b->job->base, NULL, &e));
    *all += (double)e->count;
    if (e->suite->kind == TM_SUITE_ROWS) { /* its rows are asked all at once */
        *asked += (double)e->count;
    } else {
        e->count = TM__MIN(e->count, (size_t)items);
        *asked += (double)e->count;
    }
    tm_status status = tm_evaluation_run(e, b->model, b->tokenizer, NULL, b->monitor);
    tm_evaluation_free(e);
    return status;
}

tm_status tm__cell_sample(const tm__bench *b, int64_t items, double *share) {
    const tm__probes *p = &b->plan->probes;
    double asked = 0, all = 0;
    if (b->world) {
        const tm__probes some = {
            .split = p->split, .forbidden = items, .withheld = items, .skill = items, .downstream = items};
        tm__probe_scores scores;
        TM__TRY(tm__world_probe(b->world, &some, b->model, b->tokenizer, NULL, b->monitor, &scores));
        asked += (double)((3 + TM__SKILLS) * items);
        all += (double)(p->forbidden + p->withheld + TM__SKILLS * p->skill + p->downstream);
    }
    for (size_t i = 0; i < b->plan->evaluation_count; i++) TM__TRY(sample_evaluation(b, i, items, &asked, &all));
    *share = all > 0 ? asked / all : 0;
    return TM_OK;
}
