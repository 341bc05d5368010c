/* Which prompts two data sets share: what counts as the prompt, white space, counts and rows. */
#include "support.h"

#include "data/data.h"

static tm_dataset *make(const char *const *prompts, size_t n) {
    tm_dataset *made = NULL;
    assert_ok(tm_dataset_create(&made));
    for (size_t i = 0; i < n; i++) {
        const tm_message row[] = {{"user", prompts[i]}, {"assistant", "answer"}};
        assert_ok(tm_dataset_add(made, row, 2));
    }
    return made;
}

static uint64_t hash_of(const tm_message *messages, size_t n) {
    uint64_t hash = 0;
    assert_true(tm__prompt_hash(messages, n, &hash));
    return hash;
}

/* The first 64 bits of SHA-256("how to bake a cake"). */
static void test_known_hash(void **state) {
    (void)state;
    const tm_message row[] = {{"user", "\thow  to\nbake a\r\n cake "}};
    assert_true(hash_of(row, 1) == UINT64_C(0x88923ed0c7fc3ede));
}

static void test_what_counts(void **state) {
    (void)state;
    uint64_t hash;
    const tm_message plain[] = {{"user", "say two words"}, {"assistant", "a b"}};
    const tm_message turns[] = {
        {"system", "be kind"}, {"user", "hello"}, {"assistant", "hi"}, {"user", " say two  words"}, {"assistant", "c"}};
    const tm_message input[] = {{"user", "say two"}, {"input", "words"}, {"assistant", "a b"}};
    const tm_message other[] = {{"user", "say two"}, {"input", "things"}, {"assistant", "a b"}};
    const tm_message joined[] = {{"user", "saytwo words"}, {"assistant", "a b"}};
    const tm_message text[] = {{"user", " \n"}, {"assistant", "a paragraph"}};
    assert_true(hash_of(plain, 2) == hash_of(turns, 5));
    assert_true(hash_of(plain, 2) == hash_of(input, 3));
    assert_true(hash_of(plain, 2) != hash_of(other, 3));
    assert_true(hash_of(plain, 2) != hash_of(joined, 2));
    assert_false(tm__prompt_hash(text, 2, &hash));
}

static void test_overlap(void **state) {
    (void)state;
    static const char *const a[] = {"zero", "one", "two", "two", "", "three"};
    static const char *const b[] = {"four", "three", " two", "", "two ", "five"};
    tm_dataset *x = make(a, TM__COUNT(a)), *y = make(b, TM__COUNT(b)), *z = make(b, 1);
    tm_overlap found;
    assert_ok(tm_dataset_overlap(x, y, &found));
    assert_int_equal(found.prompts, 2);
    assert_int_equal(found.row_a, 2);
    assert_int_equal(found.row_b, 2);
    assert_ok(tm_dataset_overlap(y, x, &found));
    assert_int_equal(found.prompts, 2);
    assert_int_equal(found.row_a, 1);
    assert_int_equal(found.row_b, 5);
    assert_ok(tm_dataset_overlap(x, z, &found));
    assert_int_equal(found.prompts, 0);
    tm_dataset_free(x);
    tm_dataset_free(y);
    tm_dataset_free(z);
}

static void test_no_memory(void **state) {
    (void)state;
    static const char *const a[] = {"zero", "one"};
    tm_dataset *x = make(a, 2);
    for (long n = 1; n <= 2; n++) {
        tm_overlap found = {.prompts = 7};
        tm__alloc_fail_at(n, false);
        assert_int_equal(tm_dataset_overlap(x, x, &found), TM_NO_MEMORY);
        tm__alloc_fail_at(0, false);
        assert_int_equal(found.prompts, 7);
    }
    tm_dataset_free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_hash),
        cmocka_unit_test(test_what_counts),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
