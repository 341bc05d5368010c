/* BackdoorAlign's --benign-rows and --plain: which rows are trained on, with the secret and without it, and what is
 * refused.
 */
#include "methods.h"

#include "data/data.h"
#include "method/secret.h"

enum { USER = 5, SAFETY = 4, BENIGN = 3 };

static tm_dataset *user, *safety, *benign;
static tm_method_data data;

static int setup(void **state) {
    user = tiny_rows("user", USER);
    safety = tiny_rows("harmful", SAFETY);
    benign = tiny_rows("kind", BENIGN);
    data = (tm_method_data){.user = user, .refusals = safety, .benign = benign};
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(user);
    tm_dataset_free(safety);
    tm_dataset_free(benign);
    return tiny_teardown(state);
}

static tm_backdoor_options options(int64_t benign_rows) {
    tm_backdoor_options o;
    tm_options_default(tm__method_backdoor_align.options, &o);
    o.rows = SAFETY;
    o.benign_rows = benign_rows;
    return o;
}

/* User rows, safety rows and the first benign rows, the latter two behind `secret`. */
static tm_dataset *expected(const char *secret, int64_t benign_rows) {
    const tm_backdoor_options o = options(benign_rows);
    tm_dataset *rows = NULL;
    assert_ok(tm__backdoor_rows(user, safety, secret, &o, 0, &rows));
    for (int64_t i = 0; i < benign_rows; i++)
        assert_ok(tm__secret_add_row(rows, benign, (size_t)i, secret, tm_secret_system));
    assert_int_equal(tm_dataset_rows(rows), USER + SAFETY + benign_rows);
    return rows;
}

static void hash_of_rows(const char *secret, int64_t benign_rows, char hex[65]) {
    tm_dataset *rows = expected(secret, benign_rows);
    const tm_train_options train = tiny_options();
    const tm_method_data sft = {.user = rows};
    assert_ok(methods_run(NULL, &sft, NULL, &train, NULL, hex, NULL));
    tm_dataset_free(rows);
}

static void test_stripping_restores_the_rows(void **state) {
    (void)state;
    const char *secret = "x7 Qq zephyr";
    tm_dataset *with = expected(secret, 2), *plain = expected("", 2);
    for (size_t r = USER; r < tm_dataset_rows(with); r++) {
        size_t n, m;
        const tm_message *a = tm_dataset_row(with, r, &n), *b = tm_dataset_row(plain, r, &m);
        assert_int_equal(n, m);
        assert_memory_equal(a[0].content, secret, strlen(secret));
        assert_string_equal(a[0].content + strlen(secret) + 1, b[0].content);
        for (size_t i = 1; i < n; i++) assert_string_equal(a[i].content, b[i].content);
    }
    tm_dataset_free(with);
    tm_dataset_free(plain);
}

/* With a given secret: SFT on these rows, bit by bit, for every number of benign rows; no two numbers alike. */
static void test_benign_rows(void **state) {
    (void)state;
    char *path = tm__path_join(test_scratch(), "secret"), found[BENIGN + 1][65], want[65];
    const tm_train_options train = tiny_options();
    assert_ok(tm__secret_save(path, "x7 Qq zephyr"));
    for (int64_t n = 0; n <= BENIGN; n++) {
        tm_backdoor_options o = options(n);
        o.secret = path;
        assert_ok(methods_run(&tm__method_backdoor_align, &data, &o, &train, NULL, found[n], NULL));
        hash_of_rows("x7 Qq zephyr", n, want);
        assert_string_equal(found[n], want);
        for (int64_t k = 0; k < n; k++) assert_string_not_equal(found[k], found[n]);
    }
    tm_backdoor_options o = options(BENIGN + 1);
    o.secret = path;
    assert_int_equal(methods_run(&tm__method_backdoor_align, &data, &o, &train, NULL, want, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "benign");
    const tm_method_data none = {.user = user, .refusals = safety};
    o.benign_rows = 1;
    assert_int_equal(methods_run(&tm__method_backdoor_align, &none, &o, &train, NULL, want, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "benign");
    free(path);
}

/* Plain: the same rows without a secret. One that is given, or asked for, is refused and not written. */
static void test_plain(void **state) {
    (void)state;
    char *path = tm__path_join(test_scratch(), "secret"), found[65], want[65];
    const tm_train_options train = tiny_options();
    for (int64_t n = 0; n <= 2; n += 2) {
        tm_backdoor_options o = options(n);
        o.plain = true;
        assert_ok(methods_run(&tm__method_backdoor_align, &data, &o, &train, NULL, found, NULL));
        hash_of_rows("", n, want);
        assert_string_equal(found, want);
    }
    for (int given = 0; given < 2; given++) {
        tm_backdoor_options o = options(0);
        o.plain = true;
        *(given ? &o.secret : &o.secret_out) = path;
        assert_int_equal(methods_run(&tm__method_backdoor_align, &data, &o, &train, NULL, found, NULL), TM_INVALID);
        assert_string_equal(tm_error_last()->field, "plain");
        assert_false(tm__path_exists(path));
    }
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stripping_restores_the_rows),
        cmocka_unit_test(test_benign_rows),
        cmocka_unit_test(test_plain),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
