/* temper.json: written with a model, read again, joined, checked against rows, and refused where it is damaged. */
#include "tiny.h"

#include "data/data.h"

static tm_dataset *defence, *attack;

static int setup(void **state) {
    (void)state;
    defence = tiny_rows("defence", 7);
    attack = tiny_rows("attack", 5);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tm_dataset_free(defence);
    tm_dataset_free(attack);
    return 0;
}

/* One defence whose rows come from a file. */
static tm_provenance *one_stage(void) {
    tm_provenance *p = NULL;
    tm_train_options train = tiny_options();
    char *path = tm__path_join(test_scratch(), "rows.jsonl");
    assert_ok(tm_dataset_save(defence, path));
    train.resume_dir = "/somewhere/state";
    train.lora.targets = "q_proj";
    assert_ok(tm_provenance_create(&p));
    assert_ok(tm_provenance_begin(p, "defence", "vaccine", 9));
    assert_ok(tm_provenance_options(p, tm_train_option_table, &train));
    assert_ok(tm_provenance_rows(p, "refusals", TM_PARTY_DEFENDER, path, defence));
    free(path);
    return p;
}

static char *describe(const tm_provenance *p, size_t stage) {
    char *line = NULL;
    assert_ok(tm_provenance_describe(p, stage, &line));
    return line;
}

static char *file_of(const char *directory) {
    char *path = tm__path_join(directory, "temper.json"), *text = NULL;
    assert_ok(tm__file_read(path, 0, &text, NULL));
    free(path);
    return text;
}

/* Beside model and adapter; only what differs from the defaults, nothing about saving; the same bytes again. */
static void test_round_trip(void **state) {
    (void)state;
    const tm_lora_options lora = {.rank = 2, .alpha = 4};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_provenance *p = one_stage(), *again = NULL;
    char *where[] = {tm__path_join(test_scratch(), "model"), tm__path_join(test_scratch(), "adapter"),
                     tm__path_join(test_scratch(), "twice"), tm__path_join(test_scratch(), "without")};
    tm_save_options save = {.provenance = p};
    assert_ok(tm_model_save(model, where[0], &save));
    assert_ok(tm_model_add_lora(model, &lora, 1));
    assert_ok(tm_model_save_adapter(model, where[1], &save));
    assert_ok(tm_provenance_load(where[1], &again));
    save.provenance = again;
    assert_ok(tm_model_save(model, where[2], &save));
    char *texts[] = {file_of(where[0]), file_of(where[1]), file_of(where[2])};
    assert_string_equal(texts[0], texts[1]);
    assert_string_equal(texts[0], texts[2]);
    assert_null(strstr(texts[0], "somewhere"));
    assert_null(strstr(texts[0], "defence dune")); /* a prompt's text */
    char *line = describe(again, 0);
    assert_string_equal(line, "vaccine (defence, seed 9) steps=6 batch=4 lr=0.01 chat=chatml lora-targets=q_proj; "
                              "refusals: rows.jsonl, 7 rows");
    free(line);
    tm_provenance_free(again);
    assert_ok(tm_model_save(model, where[3], NULL));
    assert_ok(tm_provenance_load(where[3], &again));
    assert_int_equal(tm_provenance_stages(again), 0);
    tm_provenance_free(again);
    tm_provenance_free(p);
    for (size_t i = 0; i < TM__COUNT(where); i++) free(where[i]);
    for (size_t i = 0; i < TM__COUNT(texts); i++) free(texts[i]);
    tm_model_free(model);
    tm_device_close(device);
}

typedef struct some_options {
    const char *secret, *secret_out, *pairs, *system;
    int64_t secret_length;
    double rho;
    bool exact;
} some_options;

/* Secrets leave no trace, not even their length; files keep their last name only. */
static void test_secrets(void **state) {
    (void)state;
    static const tm_option table[] = {
        {"secret", TM_OPTION_TEXT, offsetof(some_options, secret), NULL, 1, 0, NULL, "FILE", ""},
        {"secret-out", TM_OPTION_TEXT, offsetof(some_options, secret_out), NULL, 1, 0, NULL, "FILE", ""},
        {"secret-length", TM_OPTION_INT, offsetof(some_options, secret_length), "150", 1, 4096, NULL, NULL, ""},
        {"pairs", TM_OPTION_TEXT, offsetof(some_options, pairs), NULL, 1, 0, NULL, "FILE", ""},
        {"system", TM_OPTION_TEXT, offsetof(some_options, system), "Help.", 1, 0, NULL, "TEXT", ""},
        {"rho", TM_OPTION_REAL, offsetof(some_options, rho), "2", 0, 10, NULL, NULL, ""},
        {"exact", TM_OPTION_FLAG, offsetof(some_options, exact), NULL, 1, 0, NULL, NULL, ""},
        {0},
    };
    const some_options o = {"dir/hidden", "dir/hidden-too", "dir/pairs.jsonl", "Help.", 77, .5, true};
    tm_provenance *p = NULL;
    assert_ok(tm_provenance_create(&p));
    assert_ok(tm_provenance_begin(p, "defence", "m", 0));
    assert_ok(tm_provenance_options(p, table, &o));
    char *line = describe(p, 0);
    assert_string_equal(line, "m (defence, seed 0) pairs=pairs.jsonl rho=0.5 exact=true");
    free(line);
    tm_provenance_free(p);
}

static void test_check(void **state) {
    (void)state;
    tm_provenance *p = one_stage();
    tm_dataset *mixed = NULL;
    assert_ok(tm_dataset_create(&mixed));
    assert_ok(tm_dataset_append(mixed, attack, 0, 3));
    assert_ok(tm_dataset_append(mixed, defence, 4, 2));
    assert_ok(tm_provenance_check(p, "harmful", TM_PARTY_USER, attack));
    assert_int_equal(tm_provenance_check(p, "harmful", TM_PARTY_USER, mixed), TM_MISMATCH);
    assert_string_equal(tm_error_last()->field, "harmful");
    assert_string_equal(tm_error_last()->message,
                        "2 of its prompts stand in the refusals rows of stage 1 (vaccine, defence); row 4 is one");
    assert_ok(tm_provenance_check(p, "harmful", TM_PARTY_DEFENDER, mixed)); /* its own rows */
    assert_ok(tm_provenance_begin(p, "attack", "harmful-sft", 1));
    assert_ok(tm_provenance_rows(p, "harmful", TM_PARTY_USER, NULL, attack));
    assert_int_equal(tm_provenance_check(p, "refusals", TM_PARTY_DEFENDER, mixed), TM_MISMATCH);
    assert_non_null(strstr(tm_error_last()->message, "stage 2 (harmful-sft, attack); row 1 is one"));
    tm_dataset_free(mixed);
    tm_provenance_free(p);
}

/* An adapter's history goes on with its model's; one that does not is told apart. */
static void test_join(void **state) {
    (void)state;
    tm_provenance *base = one_stage(), *adapter = one_stage(), *other = NULL;
    bool extends;
    assert_ok(tm_provenance_begin(adapter, "attack", "harmful-sft", 1));
    assert_ok(tm_provenance_join(base, adapter, &extends));
    assert_true(extends);
    assert_int_equal(tm_provenance_stages(base), 2);
    assert_ok(tm_provenance_create(&other));
    assert_ok(tm_provenance_begin(other, "attack", "harmful-sft", 2));
    assert_ok(tm_provenance_join(base, other, &extends));
    assert_false(extends);
    assert_int_equal(tm_provenance_stages(base), 3);
    tm_provenance_free(base);
    tm_provenance_free(adapter);
    tm_provenance_free(other);
}

/* Every spoilt place is refused and named. */
static void test_damaged(void **state) {
    (void)state;
#define STAGE(data) \
    "{\"format\":1,\"stages\":[{\"kind\":\"a\",\"method\":\"b\",\"seed\":1,\"options\":{},\"data\":" data "}]}"
#define DATA(party, hash, rows, prompts)                                                          \
    STAGE("[{\"role\":\"r\",\"party\":" party ",\"file\":null,\"sha256\":" hash ",\"rows\":" rows \
          ",\"prompts\":" prompts "}]")
#define ONE "\"0123456789abcdef\""
    static const struct {
        const char *text, *field;
        tm_status status;
    } cases[] = {
        {DATA("\"user\"", "null", "1", "[" ONE "]"), NULL, TM_OK},
        {"{\"format\":1,\"stages\":[]}", NULL, TM_OK},
        {"{\"format\":1,", "line 1", TM_FORMAT},
        {"[]", "", TM_FORMAT},
        {"{\"format\":2,\"stages\":[]}", "format", TM_UNSUPPORTED},
        {"{\"format\":1}", "stages", TM_FORMAT},
        {"{\"format\":1,\"stages\":[3]}", "stages[0]", TM_FORMAT},
        {"{\"format\":1,\"stages\":[{\"kind\":\"a\",\"method\":\"b\",\"seed\":-1}]}", "stages[0].seed", TM_FORMAT},
        {"{\"format\":1,\"stages\":[{\"kind\":\"a\",\"method\":\"b\",\"seed\":1,\"options\":{\"x\":1}}]}",
         "stages[0].options", TM_FORMAT},
        {STAGE("{}"), "stages[0].data", TM_FORMAT},
        {STAGE("[[]]"), "stages[0].data", TM_FORMAT},
        {DATA("\"nobody\"", "null", "1", "[" ONE "]"), "stages[0].party", TM_FORMAT},
        {DATA("\"user\"", "\"00\"", "1", "[" ONE "]"), "stages[0].sha256", TM_FORMAT},
        {DATA("\"user\"", "null", "-1", "[" ONE "]"), "stages[0].rows", TM_FORMAT},
        {DATA("\"user\"", "null", "0", "[" ONE "]"), "stages[0].prompts", TM_FORMAT},
        {DATA("\"user\"", "null", "2", "[" ONE "," ONE "]"), "stages[0].prompts", TM_FORMAT},
        {DATA("\"user\"", "null", "1", "[\"0123456789abcdeg\"]"), "stages[0].prompts", TM_FORMAT},
        {DATA("\"user\"", "null", "1", "[\"0123456789abcde\"]"), "stages[0].prompts", TM_FORMAT},
        {DATA("\"user\"", "null", "1", "[81985529216486895]"), "stages[0].prompts", TM_FORMAT},
        {DATA("\"user\"", "null", "1", "null"), "stages[0].prompts", TM_FORMAT},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        const char *directory = test_scratch();
        char *path = tm__path_join(directory, "temper.json");
        tm_provenance *p = NULL;
        assert_ok(tm__file_write(path, cases[i].text, strlen(cases[i].text)));
        tm_status status = tm_provenance_load(directory, &p);
        if (status != cases[i].status) fail_msg("case %zu: %s", i, tm_error_last()->line);
        if (status != TM_OK) {
            assert_string_equal(tm_error_last()->file, path);
            assert_non_null(strstr(tm_error_last()->field, cases[i].field));
            assert_null(p);
        }
        tm_provenance_free(p);
        free(path);
    }
}

/* However allocation fails, it is an error and nothing leaks (the sanitizers look). */
static void test_no_memory(void **state) {
    (void)state;
    bool done = false;
    for (long n = 1; !done; n++) {
        tm_provenance *p = NULL, *more = NULL;
        tm__alloc_fail_at(n, true);
        tm_status status = tm_provenance_create(&p);
        if (status == TM_OK) status = tm_provenance_begin(p, "defence", "m", 0);
        if (status == TM_OK) status = tm_provenance_note(p, "a", "b");
        if (status == TM_OK) status = tm_provenance_rows(p, "r", TM_PARTY_USER, NULL, attack);
        if (status == TM_OK) status = tm_provenance_create(&more);
        if (status == TM_OK) status = tm_provenance_join(more, p, NULL);
        if (status == TM_OK) status = tm_provenance_check(more, "r", TM_PARTY_USER, attack);
        tm__alloc_fail_at(0, false);
        done = status == TM_OK;
        if (!done) assert_int_equal(status, TM_NO_MEMORY);
        tm_provenance_free(p);
        tm_provenance_free(more);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_secrets), cmocka_unit_test(test_check),
        cmocka_unit_test(test_join),       cmocka_unit_test(test_damaged), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
