/* test_represent.c: a comparison of hidden states: rows, halves, refusals, the same bytes for every number of threads,
 * what is written, and memory that runs out. */
#include "tiny.h"

#include "eval/represent.h"
#include "lab/represent_plot.h"

static tm_tokenizer *tokenizer;

static tm_represent_options options_of(void) {
    tm_represent_options o;
    tm_options_default(tm_represent_option_table, &o);
    o.chat = TM_CHAT_CHATML;
    return o;
}

static tm_device *device_of(int threads) {
    tm_device *device = NULL;
    const tm_device_options where = {.name = "cpu", .threads = threads, .precision = TM_PRECISION_F32};
    assert_ok(tm_device_open(&where, &device));
    return device;
}

static tm_model *model_of(tm_device *device, uint64_t seed) {
    tm_model *model = NULL;
    assert_ok(tm_model_create(device, tiny_config, seed, &model));
    return model;
}

typedef struct sets {
    tm_dataset *harmful, *harmless;
} sets;

static sets sets_of(int n) {
    return (sets){tiny_rows("bad", n), tiny_rows("good", n)};
}

static void sets_free(sets *s) {
    tm_dataset_free(s->harmful);
    tm_dataset_free(s->harmless);
}

static tm_representation *compare(const sets *s, const tm_represent_options *o, int models, int threads) {
    tm_representation *r = NULL;
    tm_device *device = device_of(threads);
    assert_ok(tm_representation_create(s->harmful, s->harmless, o, &r));
    for (int m = 0; m < models; m++) {
        tm_model *model = model_of(device, (uint64_t)m + 5);
        assert_ok(tm_representation_add(r,
                                        m == 0   ? "before, \"first\""
                                        : m == 1 ? "after"
                                                 : "third",
                                        model, tokenizer, NULL));
        tm_model_free(model);
    }
    assert_ok(tm_representation_finish(r, device));
    tm_device_close(device);
    return r;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void test_rows(void **state) {
    sets s = sets_of(30);
    tm_represent_options o = options_of();
    tm_represent_row row;
    size_t count[2][2] = {{0}};
    bool seen[2][30] = {{0}};
    (void)state;
    o.limit = 21;
    tm_representation *r = compare(&s, &o, 1, 1);
    for (size_t i = 0; tm_representation_row(r, i, &row); i++) {
        assert_false(seen[row.harmful][row.row]);
        seen[row.harmful][row.row] = true;
        count[row.harmful][row.train]++;
    }
    for (int kind = 0; kind < 2; kind++) {
        assert_int_equal(count[kind][0] + count[kind][1], 21);
        assert_true(count[kind][1] == 10 || count[kind][1] == 11);
    }
    tm_representation_free(r);
    sets_free(&s);
}

/* Rows of one prompt with several answers stay together; the same row twice counts once. */
static void test_groups(void **state) {
    sets s = sets_of(12);
    tm_represent_options o = options_of();
    tm_represent_row row;
    int half[12];
    (void)state;
    for (size_t i = 0; i < 12; i++) {
        size_t n;
        const tm_message *m = tm_dataset_row(s.harmful, i, &n);
        const tm_message other[] = {m[0], {"assistant", "otherwise"}};
        assert_ok(tm_dataset_add(s.harmful, other, 2));
        half[i] = -1;
    }
    o.position = TM_REPRESENT_ANSWER;
    tm_representation *r = compare(&s, &o, 1, 1);
    assert_int_equal(r->of[1], 24);
    for (size_t i = 0; tm_representation_row(r, i, &row); i++) {
        if (!row.harmful) continue;
        assert_true(half[row.row % 12] < 0 || half[row.row % 12] == row.train);
        half[row.row % 12] = row.train;
    }
    tm_representation_free(r);
    o.position = TM_REPRESENT_LAST; /* prompts alone: every second row repeats one */
    r = compare(&s, &o, 1, 1);
    assert_int_equal(r->of[1], 12);
    tm_representation_free(r);
    sets_free(&s);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void refused(const sets *s, const tm_represent_options *o, tm_status wanted, const char *what) {
    tm_representation *r = NULL;
    tm_device *device = device_of(1);
    tm_model *model = model_of(device, 5);
    assert_ok(tm_representation_create(s->harmful, s->harmless, o, &r));
    tm_status status = tm_representation_add(r, "model", model, tokenizer, NULL);
    assert_int_equal(status, wanted);
    if (!strstr(tm_error_last()->line, what)) fail_msg("'%s' says nothing of '%s'", tm_error_last()->line, what);
    assert_int_equal(tm_representation_models(r), 0);
    assert_int_equal(tm_representation_finish(r, device), TM_INVALID);
    tm_representation_free(r);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_refusals(void **state) {
    sets few = sets_of(7), enough = sets_of(10), same = {tiny_rows("bad", 10), tiny_rows("bad", 10)};
    tm_dataset *asked = NULL;
    tm_represent_options o = options_of();
    (void)state;
    refused(&few, &o, TM_INVALID, "7 different harmful rows can be used; the probe needs 8");
    refused(&same, &o, TM_MISMATCH, "are the same to the model");
    static const char *const lists[] = {"1,9", "two", "2-1", "1-", ",", "", "-1", "1;2", "0,"};
    for (size_t i = 0; i < TM__COUNT(lists); i++) {
        o.layers = lists[i];
        refused(&enough, &o, TM_INVALID, "layers");
    }
    o = options_of();
    o.max_length = 5;
    refused(&enough, &o, TM_INVALID, "0 different harmful rows");
    o = options_of();
    o.position = TM_REPRESENT_ANSWER;
    assert_ok(tm_dataset_create(&asked));
    for (int i = 0; i < 9; i++) assert_ok(tm_dataset_add(asked, &(tm_message){"user", i % 2 ? "why?" : "how?"}, 1));
    const sets without = {asked, enough.harmless};
    refused(&without, &o, TM_INVALID, "has no answer");
    o = options_of();
    o.components = 1;
    tm_representation *r = NULL;
    assert_int_equal(tm_representation_create(asked, asked, &o, &r), TM_INVALID);
    tm_dataset_free(asked);
    sets_free(&few);
    sets_free(&enough);
    sets_free(&same);
}

/* Another width, depth or name; a tokenizer that says something else. */
static void test_misfits(void **state) {
    sets s = sets_of(10);
    tm_representation *r = NULL;
    tm_device *device = device_of(1);
    tm_model *model = model_of(device, 5), *other = NULL;
    tm_tokenizer *turned = NULL;
    tm_represent_options o = options_of();
    (void)state;
    o.chat = TM_CHAT_AUTO;
    assert_ok(tm_representation_create(s.harmful, s.harmless, &o, &r));
    assert_ok(tm_representation_add(r, "a", model, tokenizer, NULL));
    assert_int_equal(tm_representation_add(r, "a", model, tokenizer, NULL), TM_INVALID);
    assert_int_equal(tm_representation_add(r, "\xff", model, tokenizer, NULL), TM_INVALID);
    static const char *const changes[][3] = {{"\"num_hidden_layers\":2", "\"num_hidden_layers\":3", "has 3 blocks"},
                                             {"\"hidden_size\":32", "\"hidden_size\":64", "has width 64"}};
    for (size_t i = 0; i < TM__COUNT(changes); i++) {
        char config[sizeof tiny_config + 8];
        const char *at = strstr(tiny_config, changes[i][0]);
        snprintf(config, sizeof config, "%.*s%s%s", (int)(at - tiny_config), tiny_config, changes[i][1],
                 at + strlen(changes[i][0]));
        assert_ok(tm_model_create(device, config, 1, &other));
        assert_int_equal(tm_representation_add(r, "b", other, tokenizer, NULL), TM_MISMATCH);
        assert_non_null(strstr(tm_error_last()->line, changes[i][2]));
        tm_model_free(other);
    }
    assert_ok(tm_tokenizer_load(tiny_tokenizer_directory(), &turned));
    assert_ok(tm_tokenizer_use_template(turned, "alpaca", NULL));
    assert_int_equal(tm_representation_add(r, "b", model, turned, NULL), TM_MISMATCH);
    assert_non_null(strstr(tm_error_last()->line, "becomes other tokens than for a"));
    assert_int_equal(tm_representation_models(r), 1);
    assert_ok(tm_representation_finish(r, device));
    assert_int_equal(tm_representation_add(r, "c", model, tokenizer, NULL), TM_INVALID);
    tm_representation_free(r);
    tm_tokenizer_free(turned);
    tm_model_free(model);
    tm_device_close(device);
    sets_free(&s);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static char *json_of(const tm_representation *r) {
    char *text;
    assert_ok(tm_representation_json(r, &text));
    return text;
}

static void test_threads(void **state) {
    sets s = sets_of(20);
    tm_represent_options o = options_of();
    (void)state;
    o.position = TM_REPRESENT_PROMPT;
    for (o.fit = 0; o.fit < 3; o.fit++) {
        char *first = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            tm_representation *r = compare(&s, &o, 2, threads);
            char *text = json_of(r);
            if (first) assert_string_equal(first, text);
            free(first);
            first = text;
            tm_representation_free(r);
        }
        free(first);
    }
    sets_free(&s);
}

/* "bad" and "good" stand in the prompts, so the mean state tells them apart from the embedding on; the last token's
 * embedding is the same for all. Shuffled labels are learnt by heart and help nobody. */
static void test_found(void **state) {
    sets s = sets_of(60);
    tm_represent_options o = options_of();
    tm_represent_layer l;
    (void)state;
    o.position = TM_REPRESENT_PROMPT;
    o.layers = "0-1";
    tm_representation *r = compare(&s, &o, 1, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_true(tm_representation_layer(r, 0, i, &l));
        assert_int_equal(l.layer, i);
        assert_true(l.accuracy.value > 0.95 && l.accuracy.low < l.accuracy.value && l.accuracy.high <= 1);
        assert_true(l.auc > 0.99 && l.control > 0.3 && l.control < 0.7 && l.control_train > l.control + 0.1);
        assert_true(l.explained[0] >= l.explained[1] && l.explained[1] > 0 && fabs(l.own[0] - l.explained[0]) < 1e-9);
    }
    assert_false(tm_representation_layer(r, 0, 2, &l));
    assert_false(tm_representation_layer(r, 1, 0, &l));
    tm_representation_free(r);
    o.position = TM_REPRESENT_LAST;
    r = compare(&s, &o, 1, 2);
    assert_true(tm_representation_layer(r, 0, 0, &l));
    assert_true(l.accuracy.value == 0.5 && l.auc == 0.5 && l.explained[0] == 0 && l.points[0] == 0);
    tm_representation_free(r);
    sets_free(&s);
}

/* ---- what is written --------------------------------------------------------------------------------------------- */

static char *written(const char *directory, const char *name) {
    char *path = tm__path_join(directory, name), *text;
    size_t len;
    assert_ok(tm__file_read(path, 0, &text, &len));
    free(path);
    return text;
}

static size_t lines(const char *text) {
    size_t n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

static void check_tables(const char *out) {
    char *text = written(out, "layers.csv");
    assert_int_equal(lines(text), 1 + 2 * 3);
    assert_non_null(strstr(text, "\n\"before, \"\"first\"\"\",0,"));
    free(text);
    text = written(out, "points.csv");
    assert_int_equal(lines(text), 1 + 2 * 3 * 20);
    free(text);
    text = written(out, "representation.json");
    struct json_t *json = NULL;
    assert_ok(tm__json_parse(text, strlen(text), NULL, &json));
    json_decref(json);
    assert_null(strstr(text, "amber")); /* no prompt's text */
    free(text);
}

static void test_save(void **state) {
    sets s = sets_of(10);
    tm_represent_options o = options_of();
    tm_representation *r = compare(&s, &o, 2, 1);
    const char *scratch = test_scratch();
    char *out = tm__path_join(scratch, "out"), *bare = tm__path_join(scratch, "bare"), *kept = strdup(getenv("PATH"));
    (void)state;
    assert_ok(tm_representation_save(r, out, false, NULL));
    check_tables(out);
    char *script = written(out, "components.gp");
    assert_non_null(strstr(script, "'before, \"first\"'"));
    assert_null(strstr(script, scratch));
    free(script);
    assert_int_equal(tm_representation_save(r, out, false, NULL), TM_EXISTS);
    assert_ok(tm_representation_save(r, out, true, NULL));
    assert_int_equal(tm_representation_save(r, scratch, true, NULL), TM_EXISTS); /* it holds something else */
    setenv("PATH", "/nowhere", 1);
    assert_ok(tm_representation_save(r, bare, false, NULL)); /* without gnuplot */
    setenv("PATH", kept, 1);
    check_tables(bare);
    char *picture = tm__path_join(bare, "probe.png");
    assert_false(tm__path_exists(picture));
    free(picture);
    free(out);
    free(bare);
    free(kept);
    tm_representation_free(r);
    sets_free(&s);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static tm_status whole(const sets *s, tm_device *device, tm_model *model) {
    tm_representation *r = NULL;
    tm_represent_options o = options_of();
    char *text = NULL;
    tm_status status = tm_representation_create(s->harmful, s->harmless, &o, &r);
    if (status == TM_OK) status = tm_representation_add(r, "a", model, tokenizer, NULL);
    if (status == TM_OK) status = tm_representation_add(r, "b", model, tokenizer, NULL);
    if (status == TM_OK) status = tm_representation_finish(r, device);
    if (status == TM_OK) status = tm_representation_json(r, &text);
    free(text);
    tm_representation_free(r);
    return status;
}

static void test_memory(void **state) {
    sets s = sets_of(8);
    tm_device *device = device_of(1);
    tm_model *model = model_of(device, 5);
    int failures = 0;
    (void)state;
    for (long n = 1;; n += 1 + n / 60) {
        tm__alloc_fail_at(n, true);
        tm_status status = whole(&s, device, model);
        bool failed = tm__alloc_has_failed();
        tm__alloc_fail_at(0, false);
        if (!failed) {
            assert_ok(status);
            break;
        }
        if (status != TM_NO_MEMORY) fail_msg("allocation %ld: %s", n, tm_error_last()->line);
        failures++;
    }
    assert_true(failures > 50);
    tm_model_free(model);
    tm_device_close(device);
    sets_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows),     cmocka_unit_test(test_groups),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_misfits),
                                       cmocka_unit_test(test_threads),  cmocka_unit_test(test_found),
                                       cmocka_unit_test(test_save),     cmocka_unit_test(test_memory)};
    tokenizer = tiny_tokenizer();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tm_tokenizer_free(tokenizer);
    return failed;
}
