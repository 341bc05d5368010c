/* job.c: what the methods that train have in common: checking their data, encoding it, tagging the run. */
#include "method/method.h"

#include <stdlib.h>

static tm_status check_role(unsigned needed, unsigned role, const tm_dataset *rows, const char *name,
                            const char *method) {
    if (!(needed & role) || (rows && tm_dataset_rows(rows) > 0)) return TM_OK;
    return tm__fail(TM_INVALID, NULL, name, NULL, "%s needs rows of this kind", method);
}

tm_status tm__job_begin(tm__job *job, const tm_method *method, tm_model *model, const tm_tokenizer *tokenizer,
                        const tm_method_data *data, const tm_train_options *train, const tm_monitor *monitor,
                        tm_train_result *result) {
    unsigned needed = method->required;
    *job = (tm__job){.model = model, .tokenizer = tokenizer, .data = data, .monitor = monitor, .result = result};
    TM__TRY(check_role(needed, TM_DATA_HARMFUL | TM_DATA_HARMFUL_PROMPTS, data->harmful, "harmful", method->name));
    TM__TRY(check_role(needed, TM_DATA_REFUSALS, data->refusals, "refusals", method->name));
    TM__TRY(check_role(needed, TM_DATA_BENIGN, data->benign, "benign", method->name));
    TM__TRY(check_role(needed, TM_DATA_USER, data->user, "data", method->name));
    return tm__train_options_resolve(train, &job->train);
}

tm_status tm__job_encode(const tm__job *job, const tm_dataset *rows, const char *name, tm__examples *examples) {
    const tm_train_options *t = &job->train;
    if (!rows || tm_dataset_rows(rows) == 0) return tm__fail(TM_INVALID, NULL, name, NULL, "holds no rows");
    if (tm__examples_encode(job->tokenizer, rows, (tm_chat_format)t->chat, t->max_length, t->full_sequence,
                            job->monitor, examples) == TM_OK)
        return TM_OK;
    return tm__error_within(NULL, name);
}

tm_status tm__job_run(const tm__job *job, const tm_method *method, const void *options, const tm__examples *const *sets,
                      size_t set_count, tm__run *run) {
    tm__string tag = {0};
    bool ok = tm__string_append(&tag, method->name, strlen(method->name));
    for (const tm_option *o = method->options; ok && o && o->name; o++) {
        char text[1024];
        tm_options_text(o, options, text, sizeof text);
        ok = tm__string_printf(&tag, " %s=%s", o->name, text);
    }
    tm_status status = ok ? tm__train_run(job->model, job->tokenizer, sets, set_count, tag.data, run, &job->train,
                                          job->monitor, job->result)
                          : tm__fail_memory();
    tm__string_free(&tag);
    return status;
}

uint64_t tm__job_seed(const tm__trainer *trainer, unsigned index) {
    return (uint64_t)trainer->options->seed + ((uint64_t)index << 56);
}

tm_status tm__job_side_pass(tm__trainer *trainer, const tm__examples *examples, double *loss) {
    int64_t batch = trainer->options->batch;
    const tm__pass pass = {examples, tm__job_seed(trainer, 1), trainer->step * batch, batch, 1};
    tm__pass_result result;
    uint64_t stream = trainer->tape->dropout_stream;
    TM__TRY(tm__trainer_pass(trainer, &pass, &result));
    trainer->tape->dropout_stream = stream;
    *loss = result.loss;
    return TM_OK;
}

char *tm__job_beside(const char *resume, const char *suffix) {
    size_t len = strlen(resume);
    while (len > 1 && resume[len - 1] == '/') len--;
    return tm__format("%.*s%s", (int)len, resume, suffix);
}

tm_status tm__job_needs_whole_batch(const tm__job *job, const tm_method *method) {
    int64_t micro = job->train.micro;
    if (micro == 0 || micro >= job->train.batch) return TM_OK;
    return tm__fail(TM_INVALID, NULL, "micro-batch", "leave it out, or choose a smaller batch",
                    "%s measures a whole batch before it moves it, so it cannot be split", method->name);
}
