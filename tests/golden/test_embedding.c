/* The embedding attack against float64 PyTorch written from the method specification (fixture: tools/golden/attack.py):
 * its rows, and over three steps losses, gradients, vectors and answers.
 *
 * Bound on ref fp64, as ||a - b|| / ||b||: 1e-8, the requirement. What is written in fp32 has to be equal bit for bit.
 */
#include "golden/golden.h"
#include "method/soft_prompt.h"

static tm_tokenizer *tokenizer;
static tm_dataset *prompts;

enum { PROMPTS = 3, MOST = 3 * 8 };

static const double *vectors_at(const char *kind, const char *what, int64_t count) {
    char key[64];
    tm_tensor found;
    snprintf(key, sizeof key, "%s.%s", kind, what);
    assert_ok(tm__safetensors_find(expected, key, &found));
    assert_int_equal(found.dtype, TM_F64);
    assert_int_equal(tm__tensor_count(&found), count);
    return found.data;
}

static double loss_at(const char *kind, size_t step, size_t prompt) {
    return json_number_value(json_array_get(json_array_get(golden_of("soft", kind, "losses"), step), prompt));
}

static void assert_close(double got, double want, const char *what) {
    if (!(fabs(got - want) <= BOUND * fabs(want))) fail_msg("%s: %.12g, want %.12g", what, got, want);
}

static tm__soft_row *soft_rows(void) {
    tm__soft_row *rows;
    assert_ok(tm__soft_rows_make(tokenizer, prompts, TM_CHAT_CHATML, golden_text("options.embedding.target"),
                                 golden_text("options.embedding.init"), golden_whole("options", "embedding", "tokens"),
                                 &rows));
    return rows;
}

static void test_soft_rows(void **state) {
    (void)state;
    tm__soft_row *rows = soft_rows();
    for (size_t i = 0; i < PROMPTS; i++) {
        const json_t *want = json_array_get(golden_at("soft.rows"), i), *ids = json_object_get(want, "ids");
        assert_int_equal(rows[i].at, json_integer_value(json_object_get(want, "at")));
        assert_int_equal(rows[i].ask, json_integer_value(json_object_get(want, "ask")));
        assert_int_equal(rows[i].ids.len, json_array_size(ids));
        for (size_t k = 0; k < rows[i].ids.len; k++)
            assert_int_equal(rows[i].ids.data[k], json_integer_value(json_array_get(ids, k)));
    }
    tm__soft_rows_free(rows, PROMPTS);
}

/* Each prompt's loss and gradient before every step, the vectors' change after the last. */
static void soft_steps(const char *kind, bool shared, bool recompute) {
    tm_device *device = golden_device();
    tm_model *model;
    tm__soft soft = {.width = golden_whole("options", "embedding", "tokens"), .recompute = recompute};
    tm__soft_row *rows = soft_rows();
    assert_ok(tm_model_load(device, test_path(home), NULL, &model));
    soft.model = model;
    assert_ok(tm__tape_create(device, &soft.tape));
    size_t size = (size_t)(soft.width * model->config.hidden), sets = shared ? 1 : PROMPTS, steps = 3;
    double delta[PROMPTS * MOST] = {0}, grad[PROMPTS * MOST], loss[PROMPTS], worst = 0;
    const double *of[PROMPTS], *want = vectors_at(kind, "grads", (int64_t)(steps * PROMPTS * size));
    double *into[PROMPTS];
    assert_int_equal(size, MOST);
    for (size_t i = 0; i < PROMPTS; i++) {
        of[i] = delta + (shared ? 0 : i) * size;
        into[i] = grad + i * size;
    }
    for (size_t step = 0; step <= steps; step++) {
        memset(grad, 0, sizeof grad);
        assert_ok(tm__soft_pass(&soft, rows, PROMPTS, of, step < steps ? into : NULL, loss));
        for (size_t i = 0; i < PROMPTS; i++) assert_close(loss[i], loss_at(kind, step, i), "loss of a prompt");
        if (step == steps) break;
        for (size_t i = 0; i < PROMPTS; i++) {
            double error = test_relative_error(grad + i * size, want + (step * PROMPTS + i) * size, size);
            if (!(error <= BOUND)) fail_msg("%s, step %zu, prompt %zu: gradient's error %.3g", kind, step, i, error);
            worst = TM__MAX(worst, error);
        }
        for (size_t i = 1; i < PROMPTS && shared; i++)
            for (size_t k = 0; k < size; k++) grad[k] += grad[i * size + k];
        tm__sign_step(delta, grad, sets * size, json_number_value(golden_at("options.embedding.lr")));
    }
    double error = test_relative_error(delta, vectors_at(kind, "deltas", (int64_t)(sets * size)), sets * size);
    assert_true(error <= BOUND);
    print_message("embedding %s: worst error of a gradient %.2g, of the vectors %.2g\n", kind, worst, error);
    tm__tape_free(soft.tape);
    tm__soft_rows_free(rows, PROMPTS);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_embedding_steps(void **state) {
    (void)state;
    for (int way = 0; way < 4; way++) soft_steps(way & 1 ? "shared" : "own", way & 1, way & 2);
}

typedef struct said {
    double losses[16];
    size_t count, steps;
    char note[256];
} said;

static void hear_step(void *to, const tm_progress *progress) {
    said *s = to;
    assert_true(s->count < TM__COUNT(s->losses));
    s->losses[s->count++] = progress->loss;
    assert_string_equal(progress->phase, "attack");
    assert_int_equal(progress->done, s->count);
    assert_int_equal(progress->total, s->steps);
    assert_true(progress->lr == golden_number("options.embedding.lr") && progress->tokens > 0);
}

static void hear_note(void *to, const char *line) {
    snprintf(((said *)to)->note, sizeof((said *)to)->note, "%s", line);
}

static double mean_at(const char *kind, size_t step, size_t first, size_t end) {
    double sum = 0;
    for (size_t i = first; i < end; i++) sum += loss_at(kind, step, i);
    return sum / (double)(end - first);
}

/* Prompts in groups of a batch, each through all steps; or all together where they share their vectors. */
static void compare_said(const said *s, const char *kind, bool shared, const tm_train_result *result) {
    size_t group = shared ? PROMPTS : (size_t)golden_whole("options", "embedding", "batch"), count = 0;
    char line[256];
    for (size_t first = 0; first < PROMPTS; first += group)
        for (size_t step = 0; step < 3; step++)
            assert_close(s->losses[count++], mean_at(kind, step, first, TM__MIN(first + group, PROMPTS)), "loss");
    assert_int_equal(s->count, count);
    assert_int_equal(result->steps, count);
    double before = mean_at(kind, 0, 0, PROMPTS), after = mean_at(kind, 3, 0, PROMPTS);
    assert_close(result->first_loss, before, "first loss");
    assert_close(result->last_loss, after, "last loss");
    snprintf(line, sizeof line,
             "embedding: %lld of %d answers begin with the target; its mean loss fell from %.4f to %.4f",
             (long long)golden_whole("soft", kind, "begun"), PROMPTS, before, after);
    assert_string_equal(s->note, line);
}

/* Tokens of the passes: three with a gradient and one without. */
static void compare_counts(const tm_train_result *result) {
    int64_t tokens = 0, targets = 0;
    size_t i;
    json_t *row;
    json_array_foreach(golden_at("soft.rows"), i, row) {
        int64_t len = (int64_t)json_array_size(json_object_get(row, "ids"));
        tokens += 4 * len;
        targets += 4 * (len - json_integer_value(json_object_get(row, "ask")));
    }
    assert_int_equal(result->tokens, tokens);
    assert_int_equal(result->target_tokens, targets);
}

static void compare_answers(const char *path, const char *kind) {
    tm_dataset *got;
    assert_ok(tm_dataset_load_prompts(path, &got));
    assert_int_equal(tm_dataset_rows(got), PROMPTS);
    for (size_t i = 0; i < PROMPTS; i++) {
        size_t n, m;
        const tm_message *row = tm_dataset_row(got, i, &n), *asked = tm_dataset_row(prompts, i, &m);
        while (m > 0 && strcmp(asked[m - 1].role, "assistant") == 0) m--;
        assert_int_equal(n, m + 1);
        for (size_t k = 0; k < m; k++) assert_string_equal(row[k].content, asked[k].content);
        assert_string_equal(row[m].role, "assistant");
        assert_string_equal(tm__dataset_category(got, i), tm__dataset_category(prompts, i));
        assert_string_equal(row[m].content, json_string_value(json_array_get(golden_of("soft", kind, "answers"), i)));
    }
    tm_dataset_free(got);
}

static void compare_vectors(const char *path, const char *kind) {
    tm__safetensors *file;
    tm_tensor got, want;
    char key[64];
    snprintf(key, sizeof key, "%s.vectors", kind);
    assert_ok(tm__safetensors_find(expected, key, &want));
    assert_ok(tm__safetensors_open(path, &file));
    assert_ok(tm__safetensors_find(file, "soft_prompt", &got));
    assert_int_equal(got.dtype, TM_F32);
    assert_int_equal(got.ndim, want.ndim);
    assert_memory_equal(got.shape, want.shape, (size_t)want.ndim * sizeof *want.shape);
    assert_memory_equal(got.data, want.data, tm__tensor_bytes(&want));
    tm__safetensors_close(file);
}

/* Through the method's public entry. */
static void test_embedding(void **state) {
    (void)state;
    char *answers = tm__path_join(test_scratch(), "answers.jsonl");
    char *vectors = tm__path_join(test_scratch(), "soft.safetensors");
    for (int way = 0; way < 4; way++) {
        bool shared = way & 1;
        const char *kind = shared ? "shared" : "own";
        tm_device *device = golden_device();
        tm_model *model;
        tm_train_options train;
        tm_train_result result;
        said s = {.steps = shared ? 3 : 6};
        const tm_monitor monitor = {.progress = hear_step, .note = hear_note, .user = &s};
        const tm_method_data data = {.harmful = prompts};
        const tm_embedding_options o = {.steps = 3,
                                        .lr = golden_number("options.embedding.lr"),
                                        .tokens = golden_whole("options", "embedding", "tokens"),
                                        .shared = shared,
                                        .target = golden_text("options.embedding.target"),
                                        .init = golden_text("options.embedding.init"),
                                        .max_new_tokens = golden_whole("options", "embedding", "max_new_tokens"),
                                        .answers_out = answers,
                                        .soft_prompt_out = vectors};
        tm_options_default(tm_train_option_table, &train);
        train.batch = golden_whole("options", "embedding", "batch");
        train.chat = TM_CHAT_CHATML;
        train.recompute = way & 2;
        assert_ok(tm_model_load(device, test_path(home), NULL, &model));
        assert_ok(tm__method_embedding.run(model, tokenizer, &data, &o, &train, &monitor, &result));
        compare_said(&s, kind, shared, &result);
        compare_counts(&result);
        compare_answers(answers, kind);
        compare_vectors(vectors, kind);
        tm_model_free(model);
        tm_device_close(device);
    }
    free(answers);
    free(vectors);
}

static void open_rows(void) {
    tokenizer = golden_tokenizer();
    prompts = golden_rows("rows.prompts");
}

static void close_rows(void) {
    tm_dataset_free(prompts);
    tm_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_soft_rows),
        cmocka_unit_test(test_embedding_steps),
        cmocka_unit_test(test_embedding),
    };
    return golden_run("attack", tests, TM__COUNT(tests), open_rows, close_rows);
}
