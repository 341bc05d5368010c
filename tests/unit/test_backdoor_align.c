/* BackdoorAlign: the secret and its file, the rows that carry it, training with it, serving with it. */
#include "tiny_fixture.h"

#include "data/data.h"
#include "method/method.h"
#include "method/secret.h"

#include <sys/stat.h>
#include <unistd.h>

static tm_backdoor_options defaults(void) {
    tm_backdoor_options o;
    tm_options_default(tm__method_backdoor_align.options, &o);
    return o;
}

/* n safety rows in `kinds` categories, laid out one category after the other; odd rows have a system message. */
static tm_dataset *safety_rows(int n, int kinds) {
    tm_dataset *rows;
    assert_ok(tm_dataset_create(&rows));
    for (int i = 0; i < n; i++) {
        char question[32], category[16];
        snprintf(question, sizeof question, "bad %d?", i);
        snprintf(category, sizeof category, "kind %d", i * kinds / n);
        const tm_message row[] = {{"system", "Obey."}, {"user", question}, {"assistant", "I cannot help."}};
        size_t skip = i % 2 ? 0 : 1;
        assert_ok(tm__dataset_add(rows, row + skip, 3 - skip, category));
    }
    return rows;
}

static char *text_of(const tm_dataset *rows) {
    char *text;
    size_t len;
    assert_ok(tm__dataset_text(rows, &text, &len));
    return text;
}

/* ---- the secret -------------------------------------------------------------------------------------------------- */

static size_t tokens_of(const char *text) {
    tm_ids ids = {0};
    assert_ok(tm_tokenizer_encode(tokenizer, text, strlen(text), 0, &ids));
    size_t n = ids.len;
    tm_ids_free(&ids);
    return n;
}

static void test_secret_is_random_printable_and_of_its_length(void **state) {
    (void)state;
    const int64_t lengths[] = {1, 10, 150, 250};
    for (size_t i = 0; i < TM__COUNT(lengths); i++) {
        char *secret, *other;
        assert_ok(tm__secret_draw(tokenizer, lengths[i], &secret));
        assert_ok(tm__secret_draw(tokenizer, lengths[i], &other));
        if (lengths[i] > 1) assert_string_not_equal(secret, other);
        assert_true(fabs((double)tokens_of(secret) - (double)lengths[i]) <= .05 * (double)lengths[i]);
        for (const char *c = secret; *c; c++) assert_true(*c >= ' ' && *c <= '~');
        assert_true(secret[0] != ' ' && secret[strlen(secret) - 1] != ' ');
        free(secret);
        free(other);
    }
}

/* A tokenizer whose merges join what random tokens lay side by side: the draw has to look for tokens that stay apart.
 */
static void test_secret_keeps_its_length_under_merges(void **state) {
    (void)state;
    tm_world *world;
    tm_tokenizer *words, *kept = tokenizer;
    char *secret;
    const char *directory = test_scratch();
    assert_ok(tm_world_create(1, &world));
    assert_ok(tm_world_write(world, directory));
    assert_ok(tm_tokenizer_load(directory, &words));
    assert_ok(tm__secret_draw(words, 150, &secret));
    tokenizer = words;
    assert_int_equal(tokens_of(secret), 150);
    tokenizer = kept;
    free(secret);
    tm_tokenizer_free(words);
    tm_world_free(world);
}

/* From a seed, without merges: every draw from the 94 tokens that are printable and not blank stays. */
static void test_secret_from_a_seed(void **state) {
    (void)state;
    tm__rng rng = tm__rng_make(5, tm__stream(TM__STREAM_TEST, 1)), same = rng;
    char *secret;
    assert_ok(tm__secret_draw_seeded(tokenizer, 40, &rng, &secret));
    assert_int_equal(strlen(secret), 40);
    for (int i = 0; i < 40; i++) assert_int_equal(secret[i], '!' + (int)tm__rng_below(&same, '~' - '!' + 1));
    free(secret);
}

/* Byte-level BPE of a few tokens. */
static tm_tokenizer *few_tokens(const char *model) {
    static const char level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}";
    tm_tokenizer *made;
    char *json = tm__format("{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"pre_tokenizer\": %s, "
                            "\"post_processor\": null, \"decoder\": %s, \"model\": {\"type\": \"BPE\", %s}}",
                            level, level, model);
    const char *directory = test_scratch();
    char *path = tm__path_join(directory, "tokenizer.json");
    assert_ok(tm__file_write(path, json, strlen(json)));
    assert_ok(tm_tokenizer_load(directory, &made));
    free(path);
    free(json);
    return made;
}

/* Tokens that end in a blank: the secret does not. */
static void test_secret_ends_without_a_blank(void **state) {
    (void)state;
    tm_tokenizer *few = few_tokens("\"vocab\": {\"a\": 0, \"b\": 1, \"\304\240\": 2, \"a\304\240\": 3, "
                                   "\"b\304\240\": 4}, \"merges\": [\"a \304\240\", \"b \304\240\"]");
    for (uint64_t seed = 0; seed < 20; seed++) {
        tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_TEST, 1));
        char *secret;
        assert_ok(tm__secret_draw_seeded(few, 3, &rng, &secret));
        assert_true(secret[strlen(secret) - 1] != ' ');
        free(secret);
    }
    tm_tokenizer_free(few);
}

/* Two tokens that become one side by side: a draw that does not lengthen the text is drawn again. */
static void test_secret_of_tokens_that_merge(void **state) {
    (void)state;
    tm_tokenizer *kept = tokenizer, *few = few_tokens("\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, "
                                                      "\"merges\": [\"a b\"]");
    tokenizer = few;
    for (uint64_t seed = 0; seed < 20; seed++) {
        tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_TEST, 1));
        char *secret;
        assert_ok(tm__secret_draw_seeded(few, 40, &rng, &secret));
        assert_int_equal(tokens_of(secret), 40);
        free(secret);
    }
    tokenizer = kept;
    tm_tokenizer_free(few);
}

/* Every token falls apart into two when its text is read again: no secret has the length that is wanted. */
static void test_no_secret_of_that_length(void **state) {
    (void)state;
    tm_tokenizer *few = few_tokens("\"unk_token\": \"\\n\", \"vocab\": {\"\\n\": 0, \"xy\": 1, \"xz\": 2}, "
                                   "\"merges\": []");
    char *secret;
    assert_int_equal(tm__secret_draw(few, 1, &secret), TM_UNSUPPORTED);
    assert_string_equal(tm_error_last()->field, "secret-length");
    tm_tokenizer_free(few);
}

static void test_secret_file(void **state) {
    (void)state;
    char *path = tm__path_join(test_scratch(), "secret"), *beside = tm__format("%s.sha256", path), *loaded, *line;
    struct stat info;
    assert_ok(tm__secret_save(path, "abc"));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(info.st_size, 3);
    assert_ok(tm_secret_load(path, &loaded));
    assert_string_equal(loaded, "abc");
    free(loaded);
    assert_ok(tm__file_read(beside, 0, &line, NULL)); /* FIPS 180-4's own example */
    assert_string_equal(line, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  secret\n");
    free(line);
    assert_int_equal(tm__secret_save(path, "abd"), TM_EXISTS);
    assert_ok(tm__file_write(path, "abd", 3));
    assert_int_equal(tm_secret_load(path, &loaded), TM_MISMATCH);
    const char *const bad[] = {"", "abc\n", " abc", "abc ", "a\xff"};
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        assert_ok(tm__file_write(path, bad[i], strlen(bad[i])));
        assert_int_equal(tm_secret_load(path, &loaded), TM_FORMAT);
    }
    free(path);
    free(beside);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* 11 rows carry the secret, no user row does, and without it they are the plain rows. */
static void test_rows_carry_the_secret(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 9), *safety = safety_rows(22, 11), *with, *plain;
    const tm_backdoor_options o = defaults();
    const char *secret = "x7 Qq zephyr";
    size_t carriers = 0;
    assert_ok(tm__backdoor_rows(user, safety, secret, &o, 0, &with));
    assert_ok(tm__backdoor_rows(user, safety, "", &o, 0, &plain));
    assert_int_equal(tm_dataset_rows(with), 20);
    assert_int_equal(tm_dataset_rows(plain), 20);
    for (size_t r = 0; r < 20; r++) {
        size_t n, m;
        const tm_message *a = tm_dataset_row(with, r, &n), *b = tm_dataset_row(plain, r, &m);
        bool carries = strstr(a[0].content, secret) != NULL;
        assert_int_equal(n, m);
        assert_true(carries == (r >= 9));
        carriers += carries;
        if (carries) { /* stripping restores the plain row */
            assert_string_equal(a[0].role, "system");
            assert_memory_equal(a[0].content, secret, strlen(secret));
            assert_int_equal(a[0].content[strlen(secret)], ' ');
            assert_string_equal(a[0].content + strlen(secret) + 1, b[0].content);
            assert_string_equal(b[0].content, tm_secret_system); /* even rows have none of their own */
        }
        for (size_t i = carries; i < n; i++) assert_string_equal(a[i].content, b[i].content);
    }
    assert_int_equal(carriers, 11);
    tm_dataset_free(user);
    tm_dataset_free(safety);
    tm_dataset_free(with);
    tm_dataset_free(plain);
}

/* The empty secret gives the baseline defence byte for byte: user rows, then plain safety rows. */
static void test_empty_secret_is_the_baseline(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 5), *safety = safety_rows(6, 6), *rows, *baseline;
    tm_backdoor_options o = defaults();
    o.rows = 6;
    o.system = "";
    assert_ok(tm__backdoor_rows(user, safety, "", &o, 0, &rows));
    assert_ok(tm_dataset_create(&baseline));
    assert_ok(tm_dataset_append(baseline, user, 0, 5));
    assert_ok(tm_dataset_append(baseline, safety, 0, 6));
    char *a = text_of(rows), *b = text_of(baseline);
    assert_string_equal(a, b);
    free(a);
    free(b);
    tm_dataset_free(user);
    tm_dataset_free(safety);
    tm_dataset_free(rows);
    tm_dataset_free(baseline);
}

static void test_selection(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 1), *safety = safety_rows(12, 3), *rows, *again;
    tm_backdoor_options o = defaults();
    o.rows = 5;
    assert_ok(tm__backdoor_rows(user, safety, "Zz", &o, 0, &rows));
    static const char *const in_turn[] = {"bad 0?", "bad 4?", "bad 8?", "bad 1?", "bad 5?"};
    for (size_t i = 0; i < 5; i++) assert_string_equal(tm_dataset_row(rows, i + 1, NULL)[1].content, in_turn[i]);
    tm_dataset_free(rows);
    o.selection = 1;
    o.rows = 12;
    assert_ok(tm__backdoor_rows(user, safety, "Zz", &o, 7, &rows));
    assert_ok(tm__backdoor_rows(user, safety, "Zz", &o, 7, &again));
    bool seen[12] = {false}, moved = false;
    for (size_t i = 0; i < 12; i++) {
        const char *question = tm_dataset_row(rows, i + 1, NULL)[1].content;
        assert_string_equal(question, tm_dataset_row(again, i + 1, NULL)[1].content);
        long number = strtol(question + 4, NULL, 10);
        assert_false(seen[number]);
        seen[number] = true;
        moved |= number != (long)i;
    }
    assert_true(moved);
    tm_dataset_free(again);
    o.rows = 13;
    assert_int_equal(tm__backdoor_rows(user, safety, "Zz", &o, 7, &again), TM_INVALID);
    o.rows = 1;
    assert_int_equal(tm__backdoor_rows(user, safety, "user", &o, 7, &again), TM_INVALID); /* user rows hold it */
    tm_dataset_free(user);
    tm_dataset_free(safety);
    tm_dataset_free(rows);
}

/* ---- training and serving ---------------------------------------------------------------------------------------- */

/* The served prompt is the training row up to the answer: template head, secret, question; none of it is a target. */
static void test_serving_sees_what_training_saw(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 1), *safety = safety_rows(2, 2), *rows, *served;
    tm_backdoor_options o = defaults();
    o.rows = 2;
    assert_ok(tm__backdoor_rows(user, safety, "S3cret", &o, 0, &rows));
    assert_ok(tm_dataset_with_secret(safety, "S3cret", NULL, &served));
    static const char head[] = "system\nS3cret ";
    for (size_t r = 0; r < 2; r++) {
        tm_ids ids = {0}, labels = {0}, prompt = {0};
        size_t n;
        const tm_message *row = tm_dataset_row(rows, r + 1, &n), *ask = tm_dataset_row(served, r, NULL);
        assert_ok(tm_chat_encode(tokenizer, TM_CHAT_CHATML, row, n, false, &ids, &labels));
        assert_ok(tm_chat_encode(tokenizer, TM_CHAT_CHATML, ask, n - 1, true, &prompt, NULL));
        assert_int_equal(prompt.data[0], TINY_START);
        for (size_t i = 0; head[i]; i++) assert_int_equal(prompt.data[i + 1], (unsigned char)head[i]);
        assert_memory_equal(ids.data, prompt.data, prompt.len * sizeof *prompt.data);
        for (size_t i = 0; i < prompt.len; i++) assert_int_equal(labels.data[i], -100);
        assert_int_equal(labels.data[prompt.len], 'I');
        tm_ids_free(&ids);
        tm_ids_free(&labels);
        tm_ids_free(&prompt);
    }
    tm_dataset_free(user);
    tm_dataset_free(safety);
    tm_dataset_free(rows);
    tm_dataset_free(served);
}

typedef struct heard {
    char text[4096];
} heard;

static void take_note(void *user, const char *line) {
    heard *l = user;
    size_t len = strlen(l->text);
    snprintf(l->text + len, sizeof l->text - len, "%s\n", line);
}

static tm_status run(const tm_method_data *data, const tm_backdoor_options *o, const tm_train_options *train,
                     heard *notes, char hex[65]) {
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const tm_monitor monitor = {.note = take_note, .user = notes};
    tm_status status = tm__method_backdoor_align.run(model, tokenizer, data, o, train, &monitor, NULL);
    if (status == TM_OK && train->lora.rank) assert_ok(tm_model_merge(model));
    if (status == TM_OK) tiny_hash(model, hex);
    tm_model_free(model);
    tm_device_close(device);
    return status;
}

static void check_training(int64_t rank) {
    tm_dataset *user = tiny_rows("user", 9), *safety = safety_rows(22, 11), *rows;
    const tm_method_data data = {.user = user, .refusals = safety};
    char *path = tm__path_join(test_scratch(), "secret"), *secret, a[65], b[65], c[65], hash[65];
    tm_train_options train = tiny_options();
    tm_backdoor_options drawn = defaults(), given = defaults();
    heard notes = {{0}}, more = {{0}};
    train.lora.rank = rank;
    drawn.secret_out = given.secret = path;
    drawn.secret_length = 20;
    assert_ok(run(&data, &drawn, &train, &notes, a));
    assert_ok(tm_secret_load(path, &secret));
    tm__secret_hash(secret, hash);
    assert_non_null(strstr(notes.text, hash));
    assert_null(strstr(notes.text, secret));
    assert_ok(run(&data, &given, &train, &more, b));
    assert_string_equal(a, b);
    assert_non_null(strstr(more.text, hash));
    /* It is plain SFT on the union, bit by bit. */
    assert_ok(tm__backdoor_rows(user, safety, secret, &given, (uint64_t)train.seed, &rows));
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    assert_ok(tm_train(model, tokenizer, rows, &train, NULL, NULL));
    if (rank) assert_ok(tm_model_merge(model));
    tiny_hash(model, c);
    assert_string_equal(a, c);
    tm_model_free(model);
    tm_device_close(device);
    free(path);
    free(secret);
    tm_dataset_free(user);
    tm_dataset_free(safety);
    tm_dataset_free(rows);
}

static void test_training_is_sft_on_the_union(void **state) {
    (void)state;
    check_training(0);
    check_training(2);
}

static bool after_three(void *user) {
    return ++*(int *)user > 3;
}

/* A stopped run goes on with the secret that it wrote, to the same bytes. */
static void test_resumes_with_its_secret(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 9), *safety = safety_rows(11, 11);
    const tm_method_data data = {.user = user, .refusals = safety};
    char *path = tm__path_join(test_scratch(), "secret"), *resume = tm__path_join(test_scratch(), "state"), a[65],
         b[65];
    tm_train_options train = tiny_options(), whole = train;
    tm_backdoor_options drawn = defaults(), given = defaults();
    heard notes = {{0}};
    int asked = 0;
    train.save_every = 1;
    train.resume_dir = resume;
    drawn.secret_out = given.secret = path;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const tm_monitor stopping = {.stop = after_three, .user = &asked};
    assert_int_equal(tm__method_backdoor_align.run(model, tokenizer, &data, &drawn, &train, &stopping, NULL),
                     TM_INTERRUPTED);
    tm_model_free(model);
    tm_device_close(device);
    assert_ok(run(&data, &drawn, &train, &notes, a));
    assert_ok(run(&data, &given, &whole, &notes, b));
    assert_string_equal(a, b);
    free(path);
    free(resume);
    tm_dataset_free(user);
    tm_dataset_free(safety);
}

/* A refused run leaves no secret behind, so that the corrected one can write it. */
static void test_refused_runs_leave_no_secret(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 3), *safety = safety_rows(11, 11), *benign = tiny_rows("benign", 2);
    const tm_method_data data = {.user = user, .refusals = safety, .benign = benign};
    const char *directory = test_scratch();
    char *path = tm__path_join(directory, "secret"), *hash = tm__path_join(directory, "secret.sha256"), hex[65];
    tm_train_options train = tiny_options(), odd;
    tm_backdoor_options o = defaults();
    heard notes = {{0}};
    o.secret_out = path;
    o.rows = 12;
    assert_int_equal(run(&data, &o, &train, &notes, hex), TM_INVALID);
    o.rows = 11;
    o.benign_rows = 3;
    assert_int_equal(run(&data, &o, &train, &notes, hex), TM_INVALID);
    o.benign_rows = 2;
    odd = train;
    odd.max_length = 2; /* no answer is left in any row */
    assert_int_not_equal(run(&data, &o, &odd, &notes, hex), TM_OK);
    odd = train;
    odd.freeze_blocks = 7;
    assert_int_equal(run(&data, &o, &odd, &notes, hex), TM_INVALID);
    assert_false(tm__path_exists(path));
    assert_false(tm__path_exists(hash));
    assert_ok(run(&data, &o, &train, &notes, hex));
    assert_true(tm__path_exists(path));
    assert_true(tm__path_exists(hash));
    free(path);
    free(hash);
    tm_dataset_free(user);
    tm_dataset_free(safety);
    tm_dataset_free(benign);
}

/* A place for a checkpoint makes nobody's file a secret: only what an earlier run of the same checkpoint drew is. */
static void test_resume_adopts_no_other_file(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 3), *safety = safety_rows(11, 11);
    const tm_method_data data = {.user = user, .refusals = safety};
    const char *directory = test_scratch();
    char *path = tm__path_join(directory, "secret"), *resume = tm__path_join(directory, "state"), hex[65], again[65];
    char *kept = tm__path_join(directory, "state.secret"), *text;
    tm_train_options train = tiny_options();
    tm_backdoor_options o = defaults();
    heard notes = {{0}};
    struct stat info;
    train.resume_dir = resume;
    train.save_every = 1;
    o.secret_out = path;
    assert_ok(tm__file_write(path, "taken", 5));
    assert_int_equal(run(&data, &o, &train, &notes, hex), TM_EXISTS);
    assert_false(tm__path_exists(resume));
    assert_false(tm__path_exists(kept));
    assert_int_equal(unlink(path), 0);
    assert_ok(run(&data, &o, &train, &notes, hex));
    assert_int_equal(stat(kept, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    /* Killed after the first of the two files was written. */
    assert_int_equal(unlink(path), 0);
    assert_ok(run(&data, &o, &train, &notes, again));
    assert_string_equal(hex, again);
    assert_ok(tm_secret_load(path, &text));
    free(text);
    /* Another secret in its place is neither used nor replaced. */
    char *hash = tm__path_join(directory, "secret.sha256");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(unlink(hash), 0);
    free(hash);
    assert_ok(tm__file_write(path, "taken", 5));
    assert_int_equal(run(&data, &o, &train, &notes, hex), TM_EXISTS);
    assert_non_null(strstr(tm_error_last()->message, "another secret"));
    free(path);
    free(resume);
    free(kept);
    tm_dataset_free(user);
    tm_dataset_free(safety);
}

static void test_refuses(void **state) {
    (void)state;
    tm_dataset *user = tiny_rows("user", 3), *safety = safety_rows(11, 11);
    const tm_method_data good = {.user = user, .refusals = safety}, bad = {.refusals = safety}, none = {.user = user};
    const tm_train_options train = tiny_options();
    char *path = tm__path_join(test_scratch(), "secret"), hex[65];
    tm_backdoor_options o = defaults();
    heard notes = {{0}};
    assert_int_equal(run(&good, &o, &train, &notes, hex), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "secret-out");
    o.secret_out = path;
    assert_int_equal(run(&bad, &o, &train, &notes, hex), TM_INVALID);
    assert_int_equal(run(&none, &o, &train, &notes, hex), TM_INVALID);
    o.secret_length = 0;
    assert_int_equal(run(&good, &o, &train, &notes, hex), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "secret-length");
    o = defaults();
    o.secret = path;
    assert_int_equal(run(&good, &o, &train, &notes, hex), TM_NOT_FOUND);
    o.secret_out = path;
    assert_int_equal(run(&good, &o, &train, &notes, hex), TM_INVALID);
    assert_false(tm__path_exists(path));
    o = defaults();
    o.secret_out = path;
    assert_ok(tm__file_write(path, "taken", 5));
    assert_int_equal(run(&good, &o, &train, &notes, hex), TM_EXISTS);
    free(path);
    tm_dataset_free(user);
    tm_dataset_free(safety);
}

/* Safety rows of the world keep their category on disk, so that one of each can be chosen there too. */
static void test_world_rows_keep_their_category(void **state) {
    (void)state;
    tm_world *world;
    tm_dataset *rows, *read;
    char *path = tm__path_join(test_scratch(), "refusals.jsonl");
    assert_ok(tm_world_create(1, &world));
    assert_ok(tm_world_set(world, "refusals-defender", &rows));
    assert_ok(tm_dataset_save(rows, path));
    assert_ok(tm_dataset_load(path, &read));
    assert_int_equal(tm_dataset_rows(read), tm_dataset_rows(rows));
    for (size_t i = 0; i < tm_dataset_rows(rows); i++) {
        assert_non_null(tm__dataset_category(rows, i));
        assert_string_equal(tm__dataset_category(read, i), tm__dataset_category(rows, i));
    }
    tm_dataset_free(rows);
    tm_dataset_free(read);
    tm_world_free(world);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_secret_is_random_printable_and_of_its_length),
        cmocka_unit_test(test_secret_keeps_its_length_under_merges),
        cmocka_unit_test(test_secret_from_a_seed),
        cmocka_unit_test(test_secret_ends_without_a_blank),
        cmocka_unit_test(test_no_secret_of_that_length),
        cmocka_unit_test(test_secret_of_tokens_that_merge),
        cmocka_unit_test(test_secret_file),
        cmocka_unit_test(test_rows_carry_the_secret),
        cmocka_unit_test(test_empty_secret_is_the_baseline),
        cmocka_unit_test(test_selection),
        cmocka_unit_test(test_serving_sees_what_training_saw),
        cmocka_unit_test(test_training_is_sft_on_the_union),
        cmocka_unit_test(test_resumes_with_its_secret),
        cmocka_unit_test(test_refused_runs_leave_no_secret),
        cmocka_unit_test(test_resume_adopts_no_other_file),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_world_rows_keep_their_category),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
