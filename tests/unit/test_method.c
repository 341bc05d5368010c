/* Methods end to end on a tiny model: SDD's pairs and their training, the attack and its mix. */
#include "tiny_fixture.h"

#include "data/data.h"
#include "method/method.h"

typedef struct heard {
    char text[4096];
} heard;

static void take_note(void *user, const char *line) {
    heard *l = user;
    size_t len = strlen(l->text);
    snprintf(l->text + len, sizeof l->text - len, "%s\n", line);
}

static tm_sdd_options sdd_defaults(void) {
    tm_sdd_options o;
    tm_options_default(tm__method_sdd.options, &o);
    return o;
}

/* Runs SDD on a fresh model; returns the pairing file's text (the caller's) and the weights' hash. */
static char *run_sdd(const tm_method_data *data, tm_sdd_options options, const tm_train_options *train, heard *notes,
                     tm_train_result *result, char hex[65]) {
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    char *path = tm__path_join(test_scratch(), "pairs.jsonl"), *text;
    const tm_monitor monitor = {.note = take_note, .user = notes};
    options.pairs = path;
    assert_ok(tm__method_sdd.run(model, tokenizer, data, &options, train, notes ? &monitor : NULL, result));
    assert_ok(tm__file_read(path, 0, &text, NULL));
    tiny_hash(model, hex);
    free(path);
    tm_model_free(model);
    tm_device_close(device);
    return text;
}

/* Cuts the next line off *rest; NULL at the end. */
static char *next_line(char **rest) {
    char *line = *rest, *end = strchr(line, '\n');
    if (!end) return NULL;
    *end = 0;
    *rest = end + 1;
    return line;
}

static size_t answer_index(const tm_dataset *pool, const char *answer) {
    for (size_t i = 0; i < tm_dataset_rows(pool); i++)
        if (strcmp(tm_dataset_row(pool, i, NULL)[1].content, answer) == 0) return i;
    return SIZE_MAX;
}

static void test_sdd_pairs(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 12), *benign = tiny_rows("benign", 30);
    assert_ok(tm_dataset_append(harmful, harmful, 0, 5)); /* repeated prompts */
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    const tm_train_options train = tiny_options();
    tm_train_result result;
    char a[65], b[65];
    heard notes = {{0}};
    char *text = run_sdd(&data, sdd_defaults(), &train, &notes, &result, a);
    char *again = run_sdd(&data, sdd_defaults(), &train, NULL, &result, b);
    assert_string_equal(text, again); /* C4: the same seed, the same pairing and weights */
    assert_string_equal(a, b);
    assert_non_null(strstr(notes.text, "12 prompts paired with 30 answers"));
    assert_non_null(strstr(notes.text, "a pool of 30 answers is small"));
    size_t lines = 0;
    double most = -2;
    char *rest = text;
    for (char *line; (line = next_line(&rest)) != NULL; lines++) {
        json_t *row;
        assert_ok(tm__json_parse(line, strlen(line), "pairs", &row));
        assert_string_equal(json_string_value(json_object_get(row, "prompt")),
                            tm_dataset_row(harmful, lines, NULL)[0].content);
        assert_true(answer_index(benign, json_string_value(json_object_get(row, "response"))) < 30);
        int64_t tries = json_integer_value(json_object_get(row, "resample_tries"));
        double cosine = json_real_value(json_object_get(row, "cosine_sim"));
        assert_true(tries >= 1 && tries <= 50 && cosine >= -1 && cosine <= 1);
        if (json_is_true(json_object_get(row, "accepted"))) most = fmax(most, cosine);
        json_decref(row);
    }
    assert_int_equal(lines, 12);
    char *said = strstr(notes.text, "largest cosine accepted ");
    double threshold = strtod(said + strlen("largest cosine accepted "), NULL);
    assert_true(most > -2 && most <= threshold + 5e-5); /* printed with four digits */
    free(text);
    free(again);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
}

static void test_sdd_reject_opens_with_a_refusal(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 3), *benign = tiny_rows("benign", 8);
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    const tm_train_options train = tiny_options();
    tm_sdd_options o = sdd_defaults();
    char hex[65];
    o.reject = true;
    char *text = run_sdd(&data, o, &train, NULL, NULL, hex), *rest = text;
    for (char *line; (line = next_line(&rest)) != NULL;) {
        json_t *row;
        assert_ok(tm__json_parse(line, strlen(line), "pairs", &row));
        const char *response = json_string_value(json_object_get(row, "response")), *cut = strstr(response, "\n\n");
        assert_non_null(cut);
        assert_int_equal(strncmp(response, "I cannot answer", 15), 0);
        assert_true(answer_index(benign, cut + 2) < 8);
        json_decref(row);
    }
    free(text);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
}

/* The paper's learning rate is below the spacing of bf16: all but none of the change would be lost in such a save. */
static void test_sdd_says_what_rounding_loses(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 3), *benign = tiny_rows("benign", 8);
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    tm_device *device = tiny_device("cpu");
    tm_model *fresh = tiny_model(device), *model;
    const tm_save_options bf16 = {.dtype = TM_SAVE_BF16, .overwrite = true};
    const char *directory = test_scratch();
    assert_ok(tm_model_save(fresh, directory, &bf16));
    assert_ok(tm_model_load(device, directory, NULL, &model));
    tm_train_options train = tiny_options();
    heard notes = {{0}};
    const tm_monitor monitor = {.note = take_note, .user = &notes};
    train.lr = 5e-7;
    assert_ok(tm__method_sdd.run(model, tokenizer, &data, NULL, &train, &monitor, NULL));
    const char *said = strstr(notes.text, "saved as bf16, ");
    assert_non_null(said);
    assert_true(strtod(said + strlen("saved as bf16, "), NULL) > 90);
    tm_model_free(fresh);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
}

/* Four pairs, many steps: the loss on the pairs falls, and what was the harmful answer is no longer likely. */
static void test_sdd_overfits_four_pairs(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 4), *benign = tiny_rows("benign", 4);
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    tm_train_options train = tiny_options();
    tm_train_result result;
    char hex[65];
    train.steps = 60;
    free(run_sdd(&data, sdd_defaults(), &train, NULL, &result, hex));
    assert_true(result.first_loss > 2 && result.last_loss < .3);
    /* Only answers and their end markers are targets: 4 rows a step. */
    int64_t longest = 0, shortest = INT64_MAX;
    for (size_t i = 0; i < 4; i++) {
        int64_t length = (int64_t)strlen(tm_dataset_row(benign, i, NULL)[1].content) + 1;
        longest = TM__MAX(longest, length);
        shortest = TM__MIN(shortest, length);
    }
    assert_true(result.target_tokens >= 60 * 4 * shortest && result.target_tokens <= 60 * 4 * longest);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
}

/* A prompt of several turns must not bring its old answers into training. */
static void test_sdd_drops_old_answers(void **state) {
    (void)state;
    const tm_message turns[] = {{"system", "s"},
                                {"user", "one"},
                                {"assistant", "a long harmful answer, not to train on"},
                                {"user", "two"},
                                {"input", "in"}};
    tm_dataset *harmful, *benign = tiny_rows("benign", 1);
    assert_ok(tm_dataset_create(&harmful));
    assert_ok(tm_dataset_add(harmful, turns, 5));
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    tm_train_options train = tiny_options();
    tm_train_result result;
    char hex[65];
    train.steps = train.batch = 1;
    char *text = run_sdd(&data, sdd_defaults(), &train, NULL, &result, hex);
    assert_int_equal(result.target_tokens, strlen(tm_dataset_row(benign, 0, NULL)[1].content) + 1);
    assert_non_null(strstr(text, "\"prompt\":\"two\\nin\""));
    free(text);
    tm_dataset_free(harmful);
    /* The system message stays in front: the same without it is shorter by its turn. */
    int64_t with = result.tokens;
    assert_ok(tm_dataset_create(&harmful));
    assert_ok(tm_dataset_add(harmful, turns + 3, 2));
    const tm_method_data bare = {.harmful = harmful, .benign = benign};
    free(run_sdd(&bare, sdd_defaults(), &train, NULL, &result, hex));
    assert_true(with > result.tokens);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
}

static void test_sdd_refuses(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 3), *benign = tiny_rows("benign", 3), *none;
    assert_ok(tm_dataset_create(&none));
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const tm_train_options train = tiny_options();
    const tm_method_data bad[] = {{.benign = benign},
                                  {.harmful = harmful},
                                  {.harmful = none, .benign = benign},
                                  {.harmful = harmful, .benign = none}};
    for (size_t i = 0; i < TM__COUNT(bad); i++)
        assert_int_equal(tm__method_sdd.run(model, tokenizer, &bad[i], NULL, &train, NULL, NULL), TM_INVALID);
    const tm_method_data good = {.harmful = harmful, .benign = benign};
    tm_sdd_options o = sdd_defaults();
    o.tau = -.5;
    assert_int_equal(tm__method_sdd.run(model, tokenizer, &good, &o, &train, NULL, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "tau");
    o = sdd_defaults();
    o.max_tries = 0;
    assert_int_equal(tm__method_sdd.run(model, tokenizer, &good, &o, &train, NULL, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "max-tries");
    /* What training would refuse is refused before the pairing, which may take long, and says nothing yet. */
    tm_train_options odd[] = {train, train};
    static const char *const fields[] = {"lora-targets", "freeze-blocks"};
    odd[0].lora.rank = 2;
    odd[0].lora.targets = "q_proj,nothing";
    odd[1].freeze_blocks = 2;
    for (size_t i = 0; i < TM__COUNT(odd); i++) {
        heard notes = {{0}};
        const tm_monitor monitor = {.note = take_note, .user = &notes};
        assert_int_equal(tm__method_sdd.run(model, tokenizer, &good, NULL, &odd[i], &monitor, NULL), TM_INVALID);
        assert_string_equal(tm_error_last()->field, fields[i]);
        assert_string_equal(notes.text, "");
    }
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
    tm_dataset_free(none);
}

static void attack_hash(const tm_method_data *data, const tm_harmful_sft_options *o, char hex[65]) {
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const tm_train_options train = tiny_options();
    assert_ok(tm__method_harmful_sft.run(model, tokenizer, data, o, &train, NULL, NULL));
    tiny_hash(model, hex);
    tm_model_free(model);
    tm_device_close(device);
}

/* The attack is SFT on the mix, bit by bit. */
static void test_attack_is_sft_on_the_mix(void **state) {
    (void)state;
    tm_dataset *harmful = tiny_rows("harmful", 10), *benign = tiny_rows("benign", 40), *mixed;
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    const tm_harmful_sft_options few = {.rows = 20, .poison_ratio = .2}, all = {.poison_ratio = .2};
    const tm_train_options train = tiny_options();
    char a[65], b[65], c[65];
    attack_hash(&data, &few, a);
    assert_ok(tm_dataset_poison(benign, harmful, 20, .2, &mixed));
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    assert_ok(tm_train(model, tokenizer, mixed, &train, NULL, NULL));
    tiny_hash(model, b);
    assert_string_equal(a, b);
    attack_hash(&data, &all, c); /* 10 harmful rows are a fifth of 50 */
    assert_string_not_equal(a, c);
    attack_hash(&data, NULL, c);
    const tm_harmful_sft_options many = {.rows = 100, .poison_ratio = .2};
    assert_int_equal(tm__method_harmful_sft.run(model, tokenizer, &data, &many, &train, NULL, NULL), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "20 rows are wanted, 10 are there"));
    /* All 10 harmful rows: 34 is the least number of which int(0.3 n) is 10. */
    const tm_harmful_sft_options third = {.poison_ratio = .3}, spelt = {.rows = 34, .poison_ratio = .3};
    attack_hash(&data, &third, a);
    attack_hash(&data, &spelt, b);
    assert_string_equal(a, b);
    /* 10 / 0.2 is 50 exactly and wants no row more. */
    const tm_harmful_sft_options fifty = {.rows = 50, .poison_ratio = .2};
    attack_hash(&data, &all, a);
    attack_hash(&data, &fifty, b);
    assert_string_equal(a, b);
    tm_dataset_free(mixed);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
    tm_model_free(model);
    tm_device_close(device);
}

/* Every method says what settings were published, or that none were found; the options in that text and in its example
 * are options that it has, with values they take. */
static void check_options(const tm_method *m, const char *text) {
    char own[512];
    tm_train_options train;
    assert_true(m->options_size <= sizeof own);
    for (const char *at = text; (at = strstr(at, "--")); at++) {
        char name[64], value[64];
        size_t len = strcspn(at + 2, " ,;.():"), blank = at[2 + len] == ' ';
        size_t width = strcspn(at + 2 + len + blank, " ,;()");
        const char *given = at + 2 + len + blank;
        if (strncmp(given, "--", 2) == 0) width = 0;
        snprintf(name, sizeof name, "%.*s", (int)len, at + 2);
        if (strstr(name, "targets")) width = strcspn(given, " ;()"); /* a list with commas */
        while (width && given[width - 1] == '.') width--;
        snprintf(value, sizeof value, "%.*s", (int)width, given);
        if (strcmp(name, "adapter") == 0 || strcmp(name, "harmful") == 0)
            continue; /* of the command line, for all methods */
        const tm_option *option = m->options ? tm_options_find(m->options, name) : NULL;
        bool trains = !option && (!m->train_options || strstr(m->train_options, name));
        if (option) {
            tm_options_default(m->options, own);
            if (option->type != TM_OPTION_FLAG) assert_ok(tm_options_set(m->options, own, name, value));
        } else if (trains && (option = tm_options_find(tm_train_option_table, name))) {
            tm_options_default(tm_train_option_table, &train);
            if (option->type != TM_OPTION_FLAG) assert_ok(tm_options_set(tm_train_option_table, &train, name, value));
        }
        if (!option) fail_msg("%s has no option %s", m->name, name);
    }
}

static void test_published_settings(void **state) {
    (void)state;
    const tm_method *m;
    for (size_t i = 0; (m = tm_method_at(i)); i++) {
        assert_non_null(m->settings);
        assert_true(strlen(m->settings) > 10);
        /* Where they come from, or that they are not known. */
        static const char *const from[] = {"code",      "paper",           "TamperBench",
                                           "not found", "None were found", "released run"};
        bool told = false;
        for (size_t k = 0; k < TM__COUNT(from); k++) told |= strstr(m->settings, from[k]) != NULL;
        if (!told) fail_msg("%s: %s", m->name, m->settings);
        check_options(m, m->settings);
        if (m->example) check_options(m, m->example);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_settings),
        cmocka_unit_test(test_sdd_pairs),
        cmocka_unit_test(test_sdd_reject_opens_with_a_refusal),
        cmocka_unit_test(test_sdd_says_what_rounding_loses),
        cmocka_unit_test(test_sdd_overfits_four_pairs),
        cmocka_unit_test(test_sdd_drops_old_answers),
        cmocka_unit_test(test_sdd_refuses),
        cmocka_unit_test(test_attack_is_sft_on_the_mix),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
