/* methods.h: running a method on the tiny model: its bytes, beside those of SFT, and stopped and continued. */
#ifndef TM_TEST_METHODS_H
#define TM_TEST_METHODS_H

#include "tiny_fixture.h"

#include "method/method.h"

/* Full, or an adapter with dropout. Most steps are in the middle of an epoch of 7 rows. */
static inline tm_train_options methods_options(bool lora) {
    tm_train_options o = tiny_options();
    o.schedule = 2;
    o.weight_decay = .01;
    if (lora) {
        o.lora.rank = 4;
        o.lora.alpha = 8;
        o.lora.dropout = .25;
        o.lora.targets = "all-linear";
    }
    return o;
}

typedef struct countdown {
    int64_t steps_left;
    double losses[64];
    size_t count;
} countdown;

static inline void countdown_progress(void *user, const tm_progress *progress) {
    countdown *c = user;
    c->steps_left--;
    if (c->count < TM__COUNT(c->losses)) c->losses[c->count++] = progress->loss;
}

static inline bool countdown_stop(void *user) {
    return ((const countdown *)user)->steps_left <= 0;
}

/* A fresh model through `method` (NULL: SFT on data->user), for at most `steps` steps; adapters merged; the model's
 * hash, and in *kept (may be NULL) the model, whose device is then the caller's as well. */
static inline tm_status methods_run(const tm_method *method, const tm_method_data *data, const void *options,
                                    const tm_train_options *train, countdown *c, char hex[65], tm_model **kept) {
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const tm_monitor monitor = {.progress = countdown_progress, .stop = countdown_stop, .user = c};
    const tm_monitor *watch = c ? &monitor : NULL;
    tm_status status = method ? method->run(model, tokenizer, data, options, train, watch, NULL)
                              : tm_train(model, tokenizer, data->user, train, watch, NULL);
    if (status == TM_OK && train->lora.rank) assert_ok(tm_model_merge(model));
    if (status == TM_OK) tiny_hash(model, hex);
    if (status == TM_OK && kept) {
        *kept = model;
        return status;
    }
    tm_model_free(model);
    tm_device_close(device);
    return status;
}

static inline void methods_free(tm_model *model) {
    tm_device *device = tm_model_device(model);
    tm_model_free(model);
    tm_device_close(device);
}

/* The method's bytes are those of SFT on `rows`, full and as an adapter with dropout, in two micro-batches if asked. */
static inline void methods_equal_sft(const tm_method *method, const tm_method_data *data, const void *options,
                                     const tm_dataset *rows, bool micro) {
    for (int lora = 0; lora < 2; lora++) {
        tm_train_options o = methods_options(lora);
        const tm_method_data plain = {.user = rows};
        char a[65], b[65];
        o.micro = micro ? 3 : 0;
        assert_ok(methods_run(method, data, options, &o, NULL, a, NULL));
        assert_ok(methods_run(NULL, &plain, NULL, &o, NULL, b, NULL));
        assert_string_equal(a, b);
    }
}

/* Stopped every two steps and continued, and continued once more when all is done: the bytes of a run in one piece.
 * They are not SFT's on `rows`. */
static inline void methods_resume(const tm_method *method, const tm_method_data *data, const void *options,
                                  const tm_dataset *rows) {
    for (int lora = 0; lora < 2; lora++) {
        tm_train_options o = methods_options(lora);
        const tm_method_data plain = {.user = rows};
        char whole[65], parts[65];
        assert_ok(methods_run(NULL, &plain, NULL, &o, NULL, parts, NULL));
        assert_ok(methods_run(method, data, options, &o, NULL, whole, NULL));
        assert_string_not_equal(parts, whole);
        char *directory = tm__path_join(test_scratch(), "checkpoint");
        o.resume_dir = directory;
        o.save_every = 3;
        tm_status status = TM_INTERRUPTED;
        int stops = 0;
        for (; status == TM_INTERRUPTED; stops++) {
            countdown c = {.steps_left = 2};
            status = methods_run(method, data, options, &o, &c, parts, NULL);
        }
        assert_ok(status);
        assert_true(stops >= 3);
        assert_string_equal(parts, whole);
        assert_ok(methods_run(method, data, options, &o, NULL, parts, NULL));
        assert_string_equal(parts, whole);
        free(directory);
    }
}

#endif
