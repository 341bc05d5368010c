/* The embedding attack: where vectors stand, their gradient against central differences, the sign step and how far it
 * lowers the loss, a model that refuses until it is attacked while every weight stays, answers, files, and what is
 * refused.
 */
#include "methods.h"

#include "data/data.h"
#include "method/soft_prompt.h"
#include "model/safetensors.h"

enum { WIDTH = 3, ROWS = 3 };

static tm_dataset *prompts;
static tm_method_data data;

static int setup(void **state) {
    prompts = tiny_rows("harmful", ROWS);
    data = (tm_method_data){.harmful = prompts};
    return methods_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(prompts);
    return methods_teardown(state);
}

static tm__soft_row *make_rows(tm_chat_format format, const char *target, int64_t width) {
    tm__soft_row *rows = NULL;
    assert_ok(tm__soft_rows_make(tokenizer, prompts, format, target, "#*", width, &rows));
    return rows;
}

/* Prompt and target are the ids of the conversation; the place-holders stand right behind the user's last word. */
static void test_layout(void **state) {
    (void)state;
    static const tm_chat_format formats[] = {TM_CHAT_CHATML, TM_CHAT_LLAMA2, TM_CHAT_ALPACA, TM_CHAT_PLAIN};
    static const char *const ends[] = {"<|im_end|>\n<|im_start|>assistant\n", " [/INST]", "\n\n### Response:", ""};
    for (size_t f = 0; f < TM__COUNT(formats); f++) {
        tm__soft_row *rows = make_rows(formats[f], "Sure.", WIDTH);
        for (size_t i = 0; i < ROWS; i++) {
            const tm__soft_row *row = &rows[i];
            char *text = NULL, *want = NULL;
            const char *question = tm_dataset_row(prompts, i, NULL)[0].content;
            assert_ok(tm_tokenizer_decode(tokenizer, row->ids.data, row->ids.len, 0, &text, NULL));
            want = tm__format("%s#*#%s%sSure.", question, ends[f], formats[f] == TM_CHAT_LLAMA2 ? " " : "");
            size_t tail = strlen(text) - strlen(want);
            assert_string_equal(text + tail, want);
            assert_int_equal(row->ids.data[row->at], '#');
            assert_int_equal(row->ids.data[row->at + 1], '*');
            assert_int_equal(row->ids.len - (size_t)row->ask, 5 + (formats[f] == TM_CHAT_LLAMA2));
            free(text);
            free(want);
        }
        tm__soft_rows_free(rows, ROWS);
    }
}

/* A prompt that ends in the very words that the end is measured with. */
static void test_layout_of_awkward_ends(void **state) {
    (void)state;
    static const char *const ends[] = {"x a", "x b", "a a a", "", " "};
    for (size_t i = 0; i < TM__COUNT(ends); i++) {
        tm_dataset *one = NULL;
        tm__soft_row *row = NULL;
        char *text = NULL;
        const tm_message message[] = {{"user", ends[i]}};
        assert_ok(tm_dataset_create(&one));
        assert_ok(tm_dataset_add(one, message, 1));
        assert_ok(tm__soft_rows_make(tokenizer, one, TM_CHAT_CHATML, "Sure.", "#", 2, &row));
        assert_ok(tm_tokenizer_decode(tokenizer, row->ids.data, row->ids.len, 0, &text, NULL));
        char *want = tm__format("<|im_start|>user\n%s##<|im_end|>\n<|im_start|>assistant\nSure.", ends[i]);
        assert_string_equal(text, want);
        free(want);
        free(text);
        tm__soft_rows_free(row, 1);
        tm_dataset_free(one);
    }
}

/* Deltas of row i, not all alike. */
static void fill(double *delta, size_t size) {
    for (size_t k = 0; k < ROWS * size; k++) delta[k] = .03 * sin((double)(7 * k + 1));
}

/* Central differences in fp64, rows with vectors of their own and shared ones, with and without recomputation. */
static void test_gradient(void **state) {
    (void)state;
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm__soft soft = {.model = model, .width = WIDTH};
    tm__soft_row *rows = make_rows(TM_CHAT_CHATML, "Sure.", WIDTH);
    size_t size = WIDTH * (size_t)model->config.hidden;
    double *delta = calloc(ROWS * size, sizeof *delta), *grad = calloc(ROWS * size, sizeof *grad);
    assert_ok(tm__tape_create(device, &soft.tape));
    for (int shared = 0; shared < 2; shared++) {
        soft.recompute = shared;
        const double *of[ROWS];
        double *into[ROWS], loss[ROWS], up[ROWS], down[ROWS];
        fill(delta, size);
        memset(grad, 0, ROWS * size * sizeof *grad);
        for (size_t i = 0; i < ROWS; i++) {
            of[i] = delta + (shared ? 0 : i * size);
            into[i] = grad + (shared ? 0 : i * size);
        }
        assert_ok(tm__soft_pass(&soft, rows, ROWS, of, into, loss));
        for (size_t k = 0; k < (shared ? 1 : ROWS) * size; k += 17) {
            double kept = delta[k], h = 1e-5, numeric = 0;
            delta[k] = kept + h;
            assert_ok(tm__soft_pass(&soft, rows, ROWS, of, NULL, up));
            delta[k] = kept - h;
            assert_ok(tm__soft_pass(&soft, rows, ROWS, of, NULL, down));
            delta[k] = kept;
            for (size_t i = 0; i < ROWS; i++) numeric += (up[i] - down[i]) / (2 * h);
            if (!(fabs(numeric - grad[k]) <= 1e-8 + 1e-6 * fabs(numeric)))
                fail_msg("entry %zu: %.12g, differences give %.12g", k, grad[k], numeric);
        }
    }
    tm__tape_free(soft.tape);
    tm__soft_rows_free(rows, ROWS);
    free(delta);
    free(grad);
    methods_free(model);
}

/* A row's loss is its own: alone or beside others, and without a delta that of the plain text. */
static void test_loss(void **state) {
    (void)state;
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm__soft soft = {.model = model, .width = WIDTH};
    tm__soft_row *rows = make_rows(TM_CHAT_CHATML, "Sure.", WIDTH);
    size_t size = WIDTH * (size_t)model->config.hidden;
    double *zero = calloc(size, sizeof *zero), together[ROWS], alone;
    const double *of[] = {zero, zero, zero};
    assert_ok(tm__tape_create(device, &soft.tape));
    assert_ok(tm__soft_pass(&soft, rows, ROWS, of, NULL, together));
    for (size_t i = 0; i < ROWS; i++) {
        double whole, prompt;
        assert_ok(tm__soft_pass(&soft, rows + i, 1, of, NULL, &alone));
        assert_true(fabs(alone - together[i]) <= 1e-12);
        assert_ok(tm_model_score(model, rows[i].ids.data, rows[i].ids.len, &whole));
        assert_ok(tm_model_score(model, rows[i].ids.data, (size_t)rows[i].ask, &prompt));
        double targets = (double)((int64_t)rows[i].ids.len - rows[i].ask);
        assert_true(fabs(alone + (whole - prompt) / targets) <= 1e-10);
    }
    tm__tape_free(soft.tape);
    tm__soft_rows_free(rows, ROWS);
    free(zero);
    methods_free(model);
}

static void test_sign_step(void **state) {
    (void)state;
    double x[] = {1, 1, 1, -1};
    const double g[] = {1e-30, -5, 0, 3};
    tm__sign_step(x, g, 4, .25);
    assert_true(x[0] == .75 && x[1] == 1.25 && x[2] == 1 && x[3] == -1.25);
}

/* A small step lowers a row's loss by lr ||g||_1. */
static void test_descent(void **state) {
    (void)state;
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm__soft soft = {.model = model, .width = WIDTH};
    tm__soft_row *rows = make_rows(TM_CHAT_CHATML, "Sure.", WIDTH);
    size_t size = WIDTH * (size_t)model->config.hidden;
    double *delta = calloc(size, sizeof *delta), *grad = calloc(size, sizeof *grad), before, after, norm = 0, lr = 1e-6;
    const double *of[] = {delta};
    double *into[] = {grad};
    assert_ok(tm__tape_create(device, &soft.tape));
    assert_ok(tm__soft_pass(&soft, rows, 1, of, into, &before));
    for (size_t k = 0; k < size; k++) norm += fabs(grad[k]);
    tm__sign_step(delta, grad, size, lr);
    assert_ok(tm__soft_pass(&soft, rows, 1, of, NULL, &after));
    assert_true(norm > .1);
    assert_true(fabs(before - after - lr * norm) < 1e-4 * lr * norm);
    tm__tape_free(soft.tape);
    tm__soft_rows_free(rows, ROWS);
    free(delta);
    free(grad);
    methods_free(model);
}

/* Without a delta the answers are those that generation gives to the same ids. */
static void test_answers(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm__soft soft = {.model = model, .width = WIDTH};
    tm__soft_row *rows = make_rows(TM_CHAT_CHATML, "Sure.", WIDTH);
    double *zero = calloc(WIDTH * (size_t)model->config.hidden, sizeof *zero);
    const double *of[] = {zero, zero, zero};
    tm_ids got[ROWS] = {0}, want[ROWS] = {0}, asked[ROWS];
    const tm_generate_options how = {.max_new_tokens = 12};
    assert_ok(tm__tape_create(device, &soft.tape));
    for (size_t i = 0; i < ROWS; i++) asked[i] = (tm_ids){rows[i].ids.data, (size_t)rows[i].ask, 0};
    assert_ok(tm_generate(model, asked, ROWS, NULL, 0, &how, NULL, want));
    const int32_t stop[] = {want[1].data[4]}; /* ends the second row after four tokens or before */
    for (int with = 0; with < 2; with++) {
        for (size_t i = 0; i < ROWS; i++) tm_ids_free(&want[i]);
        assert_ok(tm_generate(model, asked, ROWS, stop, (size_t)with, &how, NULL, want));
        assert_ok(tm__soft_answer(&soft, rows, ROWS, of, stop, (size_t)with, 12, got));
        assert_true(with == 0 || want[1].len <= 4);
        for (size_t i = 0; i < ROWS; i++) {
            assert_int_equal(got[i].len, want[i].len);
            assert_memory_equal(got[i].data, want[i].data, got[i].len * sizeof *got[i].data);
            tm_ids_free(&got[i]);
        }
    }
    for (size_t i = 0; i < ROWS; i++) tm_ids_free(&want[i]);
    tm__tape_free(soft.tape);
    tm__soft_rows_free(rows, ROWS);
    free(zero);
    methods_free(model);
}

typedef struct outcome {
    tm_train_result result;
    tm_dataset *answers;
    float *vectors;
    int64_t shape[3];
    char note[256];
} outcome;

static void keep_note(void *user, const char *line) {
    snprintf((char *)user, 256, "%s", line);
}

/* A model that answers "No" to harmful prompts and "Go" to others: one that never said the target could not be brought
 * to it. */
static void teach(tm_model *model) {
    tm_train_options train = tiny_options();
    tm_dataset *rows = NULL, *others = tiny_rows("kind", 12), *harmful = tiny_rows("harmful", 12);
    train.steps = 120;
    train.batch = 8;
    assert_ok(tm_dataset_create(&rows));
    for (size_t i = 0; i < 24; i++) {
        const tm_message *from = tm_dataset_row(i % 2 ? harmful : others, i / 2, NULL);
        const tm_message row[] = {from[0], {"assistant", i % 2 ? "No" : "Go"}};
        assert_ok(tm_dataset_add(rows, row, 2));
    }
    assert_ok(tm_train(model, tokenizer, rows, &train, NULL, NULL));
    tm_dataset_free(rows);
    tm_dataset_free(others);
    tm_dataset_free(harmful);
}

static void attack(tm_embedding_options o, int64_t batch, bool taught, outcome *out) {
    char *answers = tm__path_join(test_scratch(), "answers.jsonl");
    char *vectors = tm__path_join(test_scratch(), "soft.safetensors");
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_train_options train = tiny_options();
    const tm_monitor monitor = {.note = keep_note, .user = out->note};
    char before[65], after[65];
    tm__safetensors *file;
    tm_tensor found;
    if (taught) teach(model);
    train.batch = batch;
    o.answers_out = answers;
    o.soft_prompt_out = vectors;
    tiny_hash(model, before);
    assert_ok(tm__method_embedding.run(model, tokenizer, &data, &o, &train, &monitor, &out->result));
    tiny_hash(model, after);
    assert_string_equal(before, after); /* not a byte of a weight */
    assert_ok(tm_dataset_load_prompts(answers, &out->answers));
    assert_ok(tm__safetensors_open(vectors, &file));
    assert_ok(tm__safetensors_find(file, "soft_prompt", &found));
    assert_int_equal(found.ndim, 3);
    memcpy(out->shape, found.shape, sizeof out->shape);
    out->vectors = malloc(tm__tensor_bytes(&found));
    memcpy(out->vectors, found.data, tm__tensor_bytes(&found));
    tm__safetensors_close(file);
    methods_free(model);
    free(answers);
    free(vectors);
}

static void outcome_free(outcome *out) {
    tm_dataset_free(out->answers);
    free(out->vectors);
}

/* A model that refuses is brought to answer: with vectors for each prompt, and with one set for all. A step too small
 * to move anything leaves the refusals, so the vectors' beginning is not what does it. */
static void test_attack(void **state) {
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        const tm_embedding_options o = {
            .steps = 200, .lr = .01, .tokens = 4, .shared = shared, .target = "Go", .max_new_tokens = 6};
        tm_embedding_options still = o;
        outcome out = {0}, none = {0};
        still.lr = 1e-9;
        attack(still, 2, true, &none);
        assert_non_null(strstr(none.note, "0 of 3 answers begin with the target"));
        attack(o, 2, true, &out);
        assert_true(out.result.first_loss > 1 && out.result.last_loss < (shared ? .4 : .05));
        assert_true(fabs(out.result.first_loss - none.result.first_loss) < 1e-5);
        assert_int_equal(out.result.steps, shared ? 200 : 400); /* two groups of prompts */
        assert_int_equal(tm_dataset_rows(out.answers), ROWS);
        const int64_t want[] = {shared ? 1 : ROWS, 4, 32};
        assert_memory_equal(out.shape, want, sizeof want);
        assert_non_null(strstr(out.note, "3 of 3 answers begin with the target"));
        for (size_t i = 0; i < ROWS; i++) {
            size_t n;
            const tm_message *row = tm_dataset_row(out.answers, i, &n);
            assert_string_equal(row[0].content, tm_dataset_row(prompts, i, NULL)[0].content);
            assert_int_equal(strncmp(row[n - 1].content, "Go", 2), 0);
        }
        outcome_free(&out);
        outcome_free(&none);
    }
}

/* One step moves every entry by lr or not at all, from the embedding of the first word. */
static void test_one_step(void **state) {
    (void)state;
    const tm_embedding_options o = {
        .steps = 1, .lr = .25, .tokens = 2, .target = "Go", .init = "#", .max_new_tokens = 1};
    outcome out = {0};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const float *start = (const float *)model->embed.value.data + (size_t)'#' * 32;
    attack(o, 8, false, &out);
    for (size_t k = 0; k < ROWS * 2 * 32; k++) {
        double moved = fabs((double)out.vectors[k] - (double)start[k % 32]);
        assert_true(fabs(moved - .25) < 1e-6);
    }
    outcome_free(&out);
    methods_free(model);
}

/* The size of a batch decides about memory, not about what is found. */
static void test_batches(void **state) {
    (void)state;
    const tm_embedding_options o = {.steps = 5, .lr = .01, .tokens = 2, .target = "Go", .max_new_tokens = 3};
    outcome one = {0}, all = {0};
    attack(o, 1, false, &one);
    attack(o, 8, false, &all);
    assert_memory_equal(one.vectors, all.vectors, ROWS * 2 * 32 * sizeof(float));
    assert_true(fabs(one.result.last_loss - all.result.last_loss) < 1e-6);
    outcome_free(&one);
    outcome_free(&all);
}

static void test_interrupted(void **state) {
    (void)state;
    char *answers = tm__path_join(test_scratch(), "answers.jsonl");
    const tm_embedding_options o = {
        .steps = 50, .lr = .01, .tokens = 2, .target = "Go", .max_new_tokens = 3, .answers_out = answers};
    const tm_train_options train = tiny_options();
    countdown c = {.steps_left = 3};
    char hex[65];
    assert_int_equal(methods_run(&tm__method_embedding, &data, &o, &train, &c, hex, NULL), TM_INTERRUPTED);
    assert_int_equal(c.count, 3);
    assert_false(tm__path_exists(answers));
    free(answers);
}

static void test_refuses(void **state) {
    (void)state;
    const tm_embedding_options good = {.steps = 1, .lr = .01, .tokens = 2, .max_new_tokens = 1};
    tm_train_options lora = tiny_options(), resume = tiny_options(), train = tiny_options();
    tm_embedding_options bad[] = {good, good, good, good};
    static const char *const fields[] = {"target", "init", "steps", "soft-tokens"};
    char hex[65];
    lora.lora.rank = 2;
    resume.resume_dir = "somewhere";
    assert_int_equal(methods_run(&tm__method_embedding, &data, &good, &lora, NULL, hex, NULL), TM_INVALID);
    assert_int_equal(methods_run(&tm__method_embedding, &data, &good, &resume, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "resume");
    bad[0].target = " ";
    bad[1].init = "";
    bad[2].steps = 0;
    bad[3].tokens = 0;
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        assert_int_equal(methods_run(&tm__method_embedding, &data, &bad[i], &train, NULL, hex, NULL), TM_INVALID);
        assert_string_equal(tm_error_last()->field, fields[i]);
    }
    const tm_method_data none = {0};
    assert_int_equal(methods_run(&tm__method_embedding, &none, &good, &train, NULL, hex, NULL), TM_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),      cmocka_unit_test(test_layout_of_awkward_ends),
        cmocka_unit_test(test_gradient),    cmocka_unit_test(test_loss),
        cmocka_unit_test(test_sign_step),   cmocka_unit_test(test_descent),
        cmocka_unit_test(test_answers),     cmocka_unit_test(test_attack),
        cmocka_unit_test(test_one_step),    cmocka_unit_test(test_batches),
        cmocka_unit_test(test_interrupted), cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
