/* Edges of methods that the PyTorch fixtures do not reach: chunks, ties, seeds, dropout, empty answers. */
#include "methods.h"

#include "method/matrix.h"
#include "method/secret.h"
#include "model/weights.h"
#include "op/op.h"

/* ---- BackdoorAlign ---- */

/* The run's seed chooses safety rows at random. */
static void test_random_safety_rows_follow_the_seed(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 4), *safety = tiny_rows("safety", 9), *rows[2];
    char *path = tm__path_join(test_scratch(), "secret"), hex[3][65];
    tm_train_options train = methods_options(false);
    tm_backdoor_options o;
    tm_options_default(tm__method_backdoor_align.options, &o);
    o.rows = 3;
    o.selection = 1;
    o.secret = path;
    train.seed = 7;
    assert_ok(tm__file_write(path, "s3cret", 6));
    const tm_method_data data = {.user = user, .refusals = safety};
    assert_ok(methods_run(&tm__method_backdoor_align, &data, &o, &train, NULL, hex[0], NULL));
    for (int i = 0; i < 2; i++) {
        assert_ok(tm__backdoor_rows(user, safety, "s3cret", &o, i ? 0 : 7, &rows[i]));
        const tm_method_data plain = {.user = rows[i]};
        assert_ok(methods_run(NULL, &plain, NULL, &train, NULL, hex[1 + i], NULL));
    }
    assert_string_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[0], hex[2]);
    for (int i = 0; i < 2; i++) tm_dataset_free(rows[i]);
    tm_dataset_free(user);
    tm_dataset_free(safety);
    free(path);
}

/* ---- Security Vectors ---- */

/* Frozen vectors drop nothing: the first loss of stage 2 is that of evaluating with them. */
static void test_frozen_vectors_drop_nothing(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 4), *harmful = tiny_rows("harmful", 6);
    const tm_method_data data = {.user = user, .harmful = harmful};
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm_train_options train = methods_options(false);
    tm_security_vectors_options o;
    tm_loss_report report;
    tm__job job;
    countdown c = {.steps_left = 99};
    const tm_monitor monitor = {.progress = countdown_progress, .user = &c};
    tm_options_default(tm__method_security_vectors.options, &o);
    o.lora.dropout = .5;
    o.lr = .05;
    o.epochs = 4;
    train.batch = 4; /* all of the user's rows */
    train.steps = 1;
    assert_ok(tm__job_begin(&job, &tm__method_security_vectors, model, tokenizer, &data, &train, NULL, NULL));
    assert_ok(tm__security_vectors_learn(&job, &o));
    assert_ok(tm_eval_loss(model, tokenizer, user, &train, NULL, &report));
    job.monitor = &monitor;
    assert_ok(tm__security_vectors_tune(&job));
    assert_int_equal(c.count, 1);
    assert_true(fabs(c.losses[0] - report.loss) <= 1e-10 * report.loss);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(user);
    tm_dataset_free(harmful);
}

/* ---- SDD ---- */

typedef struct pairs_said {
    size_t prompts, answers, above;
} pairs_said;

static void hear_pairs(void *to, const char *line) {
    pairs_said *s = to;
    const char *above = strstr(line, "accepted ");
    if (sscanf(line, "sdd: %zu prompts paired with %zu answers", &s->prompts, &s->answers) != 2 || !above) return;
    assert_int_equal(sscanf(above, "accepted %*f; %zu above", &s->above), 1);
}

/* Empty answers are no answers; the note counts the pairs above the threshold as the file does. */
static void test_empty_answers_and_fallbacks(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 7), *benign = tiny_rows("benign", 6);
    const tm_message empty[] = {{"user", "say nothing"}, {"assistant", ""}};
    assert_ok(tm_dataset_add(benign, empty, 2));
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    const tm_train_options train = methods_options(false);
    char *path = tm__path_join(test_scratch(), "pairs.jsonl"), *text;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_sdd_options o;
    pairs_said said = {0};
    const tm_monitor monitor = {.note = hear_pairs, .user = &said};
    tm_options_default(tm__method_sdd.options, &o);
    o.pairs = path;
    o.tau = .3;
    o.max_tries = 1;
    assert_ok(tm__method_sdd.run(model, tokenizer, &data, &o, &train, &monitor, NULL));
    assert_ok(tm__file_read(path, 0, &text, NULL));
    size_t above = 0;
    for (const char *at = text; (at = strstr(at, "\"accepted\":false")) != NULL; at++) above++;
    assert_true(above > 0 && above < 7 && 2 * above != 7);
    assert_int_equal(said.prompts, 7);
    assert_int_equal(said.answers, 6);
    assert_int_equal(said.above, above);
    o.pairs = NULL;
    o.tau = 0; /* the least of all similarities: one pair alone has it */
    o.max_tries = 300;
    assert_ok(tm__method_sdd.run(model, tokenizer, &data, &o, &train, &monitor, NULL));
    assert_int_equal(said.above, 6);
    free(text);
    free(path);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
}

/* ---- chunks ---- */

/* More rows than are read at a time: the direction leaves all of them. */
static void test_ablation_of_many_rows(void **state) {
    (void)state;
    enum { ROWS = 600, COLUMNS = 3 };
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    double *w = malloc(ROWS * COLUMNS * sizeof *w), *was = malloc(ROWS * COLUMNS * sizeof *w), *r = malloc(ROWS * 8),
           norm = 0, along[COLUMNS] = {0};
    for (int i = 0; i < ROWS; i++) r[i] = sin(i + 1);
    for (int i = 0; i < ROWS; i++) norm += r[i] * r[i];
    for (int i = 0; i < ROWS; i++) r[i] /= sqrt(norm);
    for (int i = 0; i < ROWS * COLUMNS; i++) w[i] = was[i] = cos(3 * i) + .1;
    for (int i = 0; i < ROWS * COLUMNS; i++) along[i % COLUMNS] += r[i / COLUMNS] * was[i];
    tm__param matrix = {.value = {.dtype = TM_F64, .ndim = 2, .shape = {ROWS, COLUMNS}, .data = w}, .owned = true};
    assert_ok(tm__ablate_output(model, &matrix, r));
    for (int i = 0; i < ROWS * COLUMNS; i++)
        assert_true(fabs(w[i] - (was[i] - r[i / COLUMNS] * along[i % COLUMNS])) < 1e-13);
    const double unit[COLUMNS] = {.6, 0, .8};
    memcpy(w, was, ROWS * COLUMNS * sizeof *w);
    assert_ok(tm__ablate_rows(model, &matrix, unit));
    for (int i = 0; i < ROWS; i++) {
        double dot = .6 * was[i * COLUMNS] + .8 * was[i * COLUMNS + 2];
        for (int j = 0; j < COLUMNS; j++)
            assert_true(fabs(w[i * COLUMNS + j] - (was[i * COLUMNS + j] - dot * unit[j])) < 1e-13);
    }
    free(w);
    free(was);
    free(r);
    tm_model_free(model);
    tm_device_close(device);
}

/* The tiny model with more embeddings. */
static tm_model *wide_model(tm_device *device, int vocab) {
    tm_model *model;
    const char *at = strstr(tiny_config, "259");
    char *config = tm__format("%.*s%d%s", (int)(at - tiny_config), tiny_config, vocab, at + 3);
    assert_ok(tm_model_create(device, config, 5, &model));
    free(config);
    return model;
}

/* More targets than have their logits at a time: RepNoise's step does not depend on the order of a batch's rows. */
static void test_lenses_in_chunks(void **state) {
    (void)state;
    enum { VOCAB = 80000, ROWS = 4, LEAST = 60, D = 32 };
    static const char text[] = "the grove by night, then boil ember and mix it with dune and fern until it is amber; "
                               "leave the brook and cedar";
    const tm_repnoise_options o = {.alpha = 1};
    tm_dataset *harmful, *refusals;
    assert_ok(tm_dataset_create(&harmful));
    assert_ok(tm_dataset_create(&refusals));
    for (int i = 0; i < ROWS; i++) {
        char prompt[32], answer[sizeof text];
        snprintf(prompt, sizeof prompt, "how %d?", i);
        snprintf(answer, sizeof answer, "%.*s", LEAST + 13 * i, text);
        const tm_message bad[] = {{"user", prompt}, {"assistant", answer}};
        const tm_message good[] = {{"user", prompt}, {"assistant", i % 2 ? "No." : "I will not."}};
        assert_ok(tm_dataset_add(harmful, bad, 2));
        assert_ok(tm_dataset_add(refusals, good, 2));
    }
    assert_true(TM__HEAD_CHUNK_BYTES / (VOCAB * sizeof(float)) < LEAST * ROWS);
    const tm_method_data data = {.harmful = harmful, .refusals = refusals};
    tm_train_options train = tiny_options();
    train.steps = 1;
    train.batch = ROWS;
    train.optimiser = 1; /* gradient descent */
    train.clip = 0;
    train.lr = 1;
    double loss[3], *weights[3];
    for (int i = 0; i < 3; i++) {
        tm_device *device = tiny_device("cpu");
        tm_model *model = wide_model(device, VOCAB);
        tm_train_result result;
        train.seed = i;
        assert_ok(tm__method_repnoise.run(model, tokenizer, &data, &o, &train, NULL, &result));
        loss[i] = result.first_loss;
        assert_ok(tm__param_read_all(device, &model->blocks[0].q.weight, &weights[i]));
        tm_model_free(model);
        tm_device_close(device);
        assert_true(fabs(loss[i] - loss[0]) < 1e-6);
        assert_true(test_relative_error(weights[i], weights[0], D * D) < 1e-6);
    }
    for (int i = 0; i < 3; i++) free(weights[i]);
    tm_dataset_free(harmful);
    tm_dataset_free(refusals);
}

/* More entries than are drawn at a time: entry i of tensor 0 is number i of its stream. */
static void test_noise_of_a_large_tensor(void **state) {
    (void)state;
    enum { VOCAB = 2200, D = 32 };
    tm_device *device = tiny_device("ref64");
    tm_model *model = wide_model(device, VOCAB);
    double *before, *after;
    const tm_random_perturbation_options o = {.sigma = .25};
    const tm_method_data data = {0};
    tm_train_options train = methods_options(false);
    train.seed = 11;
    assert_ok(tm__param_read_all(device, &model->embed, &before));
    assert_ok(tm__method_random_perturbation.run(model, tokenizer, &data, &o, &train, NULL, NULL));
    assert_ok(tm__param_read_all(device, &model->embed, &after));
    tm__rng rng = tm__rng_make(11, tm__stream(TM__STREAM_NOISE, 0));
    for (int i = 0; i < VOCAB * D; i++) assert_true(fabs(after[i] - before[i] - .25 * tm__rng_normal(&rng)) < 1e-13);
    free(before);
    free(after);
    tm_model_free(model);
    tm_device_close(device);
}

/* ---- SafeLoRA ---- */

static void copy_param(const tm__param *from, tm__param *to) {
    memcpy(to->value.data, from->value.data, tm__tensor_bytes(&from->value));
}

static void take_note(void *user, const char *line) {
    snprintf(user, 256, "%s", line);
}

/* Both blocks are the same in all models, so that their modules' cosines are equal: "lowest 1" takes one of them, and
 * tau at exactly that cosine takes both. */
static void test_equal_cosines(void **state) {
    (void)state;
    const tm_save_options save = {.overwrite = true};
    const char *base = test_scratch();
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    copy_param(&model->blocks[0].q.weight, &model->blocks[1].q.weight);
    assert_ok(tm_model_save(model, base, &save));
    int64_t size = 32 * 32;
    double *q = model->blocks[0].q.weight.value.data, *v = malloc((size_t)size * sizeof *v);
    for (int64_t i = 0; i < size; i++) q[i] = (double)(float)q[i] + (v[i] = (i % 5) / 16.0);
    copy_param(&model->blocks[0].q.weight, &model->blocks[1].q.weight);
    const tm_lora_options lora = {.rank = 2, .alpha = 4, .targets = "q_proj"};
    assert_ok(tm_model_add_lora(model, &lora, 3));
    tm__adapter *first = &model->blocks[0].q.adapters[0], *second = &model->blocks[1].q.adapters[0];
    double *b = first->b.value.data, pb[64], cosine;
    for (int i = 0; i < 64; i++) b[i] = cos(i);
    copy_param(&first->a, &second->a);
    copy_param(&first->b, &second->b);
    /* V as the method sees it: the difference of what is saved, which fp32 rounds. */
    tm_model *saved;
    double *low;
    assert_ok(tm_model_load(device, base, NULL, &saved));
    assert_ok(tm__param_read_all(device, &saved->blocks[0].q.weight, &low));
    for (int64_t i = 0; i < size; i++) v[i] = q[i] - low[i];
    assert_ok(tm__safe_lora_project(v, 32, 32, b, first->a.value.data, 2, TM__PROJECT_CODE, pb, &cosine));
    assert_true(cosine > -1 && cosine < 1);
    for (int way = 0; way < 3; way++) {
        static const char *const said[] = {"1 of 2 modules", "2 of 2 modules", "0 of 2 modules"};
        const tm_safe_lora_options o = {
            .base = base, .tau = way < 2 ? cosine : nextafter(cosine, -1), .lowest = way == 0};
        const tm_method_data data = {0};
        char note[256];
        double kept[64];
        const tm_monitor monitor = {.note = take_note, .user = note};
        memcpy(kept, b, sizeof kept);
        assert_ok(tm__method_safe_lora.run(model, tokenizer, &data, &o, NULL, &monitor, NULL));
        if (!strstr(note, said[way])) fail_msg("%s", note);
        memcpy(b, kept, sizeof kept);
        copy_param(&first->b, &second->b);
    }
    free(v);
    free(low);
    tm_model_free(saved);
    tm_model_free(model);
    tm_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_safety_rows_follow_the_seed),
        cmocka_unit_test(test_frozen_vectors_drop_nothing),
        cmocka_unit_test(test_empty_answers_and_fallbacks),
        cmocka_unit_test(test_ablation_of_many_rows),
        cmocka_unit_test(test_lenses_in_chunks),
        cmocka_unit_test(test_noise_of_a_large_tensor),
        cmocka_unit_test(test_equal_cosines),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
