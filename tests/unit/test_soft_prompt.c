/* Vectors among the words of a prompt: where they stand, their loss and its gradient against central differences, the
 * sign step, and greedy answers.
 */
#include "methods.h"

#include "data/data.h"
#include "method/soft_prompt.h"

enum { WIDTH = 3, ROWS = 3 };

static tm_dataset *prompts;

/* Three of which the second is shorter than the others. */
static int setup(void **state) {
    static const size_t chosen[ROWS] = {0, 3, 2};
    tm_dataset *all = tiny_rows("harmful", 4);
    assert_ok(tm_dataset_create(&prompts));
    for (size_t i = 0; i < ROWS; i++) assert_ok(tm_dataset_add(prompts, tm_dataset_row(all, chosen[i], NULL), 2));
    tm_dataset_free(all);
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(prompts);
    return tiny_teardown(state);
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

/* A prompt that ends in the very words that the end is measured with, or is one of them. */
static void test_layout_of_awkward_ends(void **state) {
    (void)state;
    static const char *const ends[] = {"x a", "x b", "a a a", "", " ", "a", "b"};
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

/* Blanks at a target's end are no part of what the answer begins with. */
static void test_blanks_behind_target(void **state) {
    (void)state;
    static const char *const targets[] = {"Sure. ", "Sure.\n", "Sure. \n \n"};
    tm__soft_row *want = make_rows(TM_CHAT_CHATML, "Sure.", WIDTH);
    for (size_t f = 0; f < TM__COUNT(targets); f++) {
        tm__soft_row *rows = make_rows(TM_CHAT_CHATML, targets[f], WIDTH);
        for (size_t i = 0; i < ROWS; i++) {
            assert_int_equal(rows[i].ids.len, want[i].ids.len);
            assert_memory_equal(rows[i].ids.data, want[i].ids.data, want[i].ids.len * sizeof *want[i].ids.data);
        }
        tm__soft_rows_free(rows, ROWS);
    }
    tm__soft_rows_free(want, ROWS);
}

static void use_template(const char *text) {
    char *path = tm__path_join(test_scratch(), "chat.jinja");
    assert_ok(tm__file_write(path, text, strlen(text)));
    assert_ok(tm_tokenizer_use_template(tokenizer, path, NULL));
    free(path);
}

/* With a template: what stands behind the answer is no part of the target, whatever it is; and an answer that does not
 * begin where the prompt ends has no place for vectors. */
static void test_templates(void **state) {
    (void)state;
    tm__soft_row *rows = NULL;
    use_template("{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
                 "{% endgeneration %}|{% else %}{{ m.content }}>{% endif %}{% endfor %}");
    rows = make_rows(TM_CHAT_TEMPLATE, "Sure.", WIDTH);
    for (size_t i = 0; i < ROWS; i++) {
        char *text = NULL, *want = tm__format("%s#*#>Sure.", tm_dataset_row(prompts, i, NULL)[0].content);
        assert_ok(tm_tokenizer_decode(tokenizer, rows[i].ids.data, rows[i].ids.len, 0, &text, NULL));
        assert_string_equal(text, want);
        assert_int_equal(rows[i].ids.len - (size_t)rows[i].ask, 5);
        free(text);
        free(want);
    }
    tm__soft_rows_free(rows, ROWS);
    use_template("{% for m in messages %}{{ m.content }}>{% endfor %}{% if add_generation_prompt %}?{% endif %}");
    assert_int_equal(tm__soft_rows_make(tokenizer, prompts, TM_CHAT_TEMPLATE, "Sure.", "#", WIDTH, &rows),
                     TM_UNSUPPORTED);
    assert_string_equal(tm_error_last()->message, "the answer does not begin where the prompt ends");
    assert_ok(tm_tokenizer_use_template(tokenizer, NULL, NULL));
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

/* A row's loss is its own: to the bit the same alone or beside others, and without a delta that of the plain text. */
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
        assert_true(alone == together[i]);
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

/* One whose answers are not the same token over and over. */
static tm_model *lively_model(tm_device *device) {
    char config[sizeof tiny_config];
    tm_model *model = NULL;
    memcpy(config, tiny_config, sizeof config);
    memcpy(strstr(config, "0.08"), "0.70", 4);
    assert_ok(tm_model_create(device, config, 5, &model));
    return model;
}

/* Without a delta the answers are those that generation gives to the same ids. */
static void test_answers(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = lively_model(device);
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

static bool holds(const tm_ids *ids, int32_t id) {
    for (size_t i = 0; i < ids->len; i++)
        if (ids->data[i] == id) return true;
    return false;
}

/* Rows that end at different times keep their own text and vectors. */
static void test_answers_with_vectors(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = lively_model(device);
    tm__soft soft = {.model = model, .width = WIDTH};
    tm__soft_row *rows = make_rows(TM_CHAT_CHATML, "Sure.", WIDTH);
    assert_int_not_equal(rows[0].at, rows[1].at);
    size_t size = WIDTH * (size_t)model->config.hidden, at = 0;
    double *delta = calloc(ROWS * size, sizeof *delta);
    const double *of[] = {delta, delta + size, delta + 2 * size};
    tm_ids together[ROWS] = {0}, alone[ROWS] = {0};
    for (size_t k = 0; k < ROWS * size; k++) delta[k] = sin((double)((k / size + 2) * k + 1));
    assert_ok(tm__tape_create(device, &soft.tape));
    for (size_t i = 0; i < ROWS; i++) assert_ok(tm__soft_answer(&soft, rows + i, 1, of + i, NULL, 0, 12, &alone[i]));
    while (at < 12 && (holds(&alone[1], alone[0].data[at]) || holds(&alone[2], alone[0].data[at]))) at++;
    assert_in_range(at, 0, 10);
    const int32_t stop[] = {alone[0].data[at], -1}; /* ends the first row, and no other */
    assert_memory_not_equal(alone[1].data, alone[2].data, 12 * sizeof *alone[1].data);
    assert_ok(tm__soft_answer(&soft, rows, ROWS, of, stop, 2, 12, together));
    for (size_t i = 0; i < ROWS; i++) {
        assert_int_equal(together[i].len, i ? 12 : at);
        assert_memory_equal(together[i].data, alone[i].data, together[i].len * sizeof *alone[i].data);
        tm_ids_free(&together[i]);
        tm_ids_free(&alone[i]);
    }
    tm__tape_free(soft.tape);
    tm__soft_rows_free(rows, ROWS);
    free(delta);
    methods_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_layout_of_awkward_ends),
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_sign_step),
        cmocka_unit_test(test_descent),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_answers_with_vectors),
        cmocka_unit_test(test_blanks_behind_target),
        cmocka_unit_test(test_templates),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
