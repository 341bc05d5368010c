/* test_eval_text.c: Python's string functions and its random.sample, against values that CPython 3.11 gave. */
#include "support.h"

#include "eval/suite.h"

static void strips(const char *text, const char *wanted) {
    size_t len;
    const char *from = tm__py_strip(text, &len);
    assert_int_equal(len, strlen(wanted));
    assert_memory_equal(from, wanted, len);
}

static void test_strip(void **state) {
    (void)state;
    strips("", "");
    strips(" \t\r\n\f\v\x1c\x1f", "");
    strips("  a b ", "a b");
    strips("\xc2\xa0\xe3\x80\x80x\xe2\x80\xa8", "x"); /* no-break and ideographic space, line separator */
    strips("\xe2\x80\x8bx", "\xe2\x80\x8bx");         /* a zero-width space is none */
    assert_int_equal(tm__py_rstrip("a  ", 3), 1);
    assert_int_equal(tm__py_rstrip("   ", 3), 0);
}

static void test_counts(void **state) {
    (void)state;
    assert_int_equal(tm__py_length("na\xc3\xafve \xf0\x9f\x90\x9d"), 7);
    assert_int_equal(tm__py_words("a b  c"), 3);
    assert_int_equal(tm__py_words(" a b "), 4); /* re.split has an empty text at each end */
    assert_int_equal(tm__py_words(""), 1);
    assert_int_equal(tm__py_words("a\xc2\xa0\nb"), 2);
}

static void changes(char *got, const char *wanted) {
    assert_non_null(got);
    assert_string_equal(got, wanted);
    free(got);
}

static void test_changes(void **state) {
    (void)state;
    changes(tm__py_capitalize("\xc3\x89VA and BO"), "\xc3\x89va and bo");
    changes(tm__py_capitalize("\xc3\xa9t\xc3\x89"), "\xc3\x89t\xc3\xa9");
    changes(tm__py_capitalize(""), "");
    changes(tm__py_capitalize(" aB"), " ab");
    changes(tm__py_replace("a    b", "  ", " "), "a  b"); /* once, from left to right */
    changes(tm__py_replace("aaa", "aa", "b"), "ba");
    changes(tm__py_replace("abc", "x", "y"), "abc");
}

static void draws(tm__py_random *random, size_t n, size_t k, const size_t *wanted, size_t compared) {
    size_t chosen[64];
    assert_ok(tm__py_random_sample(random, n, k, chosen));
    for (size_t i = 0; i < compared; i++) assert_int_equal(chosen[i], wanted[i]);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < i; j++) assert_int_not_equal(chosen[i], chosen[j]);
}

static void test_random(void **state) {
    tm__py_random random;
    (void)state;
    tm__py_random_seed(&random, 1234);
    assert_int_equal(tm__py_random_u32(&random), 4150886329u);
    assert_int_equal(tm__py_random_u32(&random), 3342196574u);
    tm__py_random_seed(&random, 1234);
    draws(&random, 30, 5, (const size_t[]){24, 14, 3, 0, 2}, 5); /* a set of what was drawn */
    draws(&random, 10, 5, (const size_t[]){9, 0, 1, 8, 2}, 5);   /* a list that is drawn down */
    draws(&random, 10000, 8, (const size_t[]){3879, 285, 504, 259, 5670, 7933, 7594, 2433}, 8);
    draws(&random, 100, 25, (const size_t[]){11, 23, 91, 14, 1, 64}, 6);
    tm__py_random_seed(&random, (1ull << 40) + 7); /* a key of two words */
    draws(&random, 1000, 4, (const size_t[]){628, 765, 834, 960}, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strip),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
