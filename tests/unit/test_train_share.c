/* Division of rows among processes: complete, the same for all, and even. */
#include "tiny.h"

static void divides(void **state) {
    (void)state;
    tm__rng rng = tm__rng_make(1, tm__stream(TM__STREAM_TEST, 7));
    for (int trial = 0; trial < 200; trial++) {
        size_t lengths[24], tokens[5] = {0}, total = 0, longest = 0, most = 0;
        int owner[24], ranks = 1 + (int)(tm__rng_u32(&rng) % 5);
        size_t n = tm__rng_u32(&rng) % 24;
        for (size_t i = 0; i < n; i++) {
            lengths[i] = 1 + tm__rng_u32(&rng) % 500;
            total += lengths[i];
            longest = TM__MAX(longest, lengths[i]);
            owner[i] = -1;
        }
        assert_ok(tm__share_divide(lengths, n, ranks, owner));
        for (size_t i = 0; i < n; i++) {
            assert_in_range(owner[i], 0, ranks - 1);
            tokens[owner[i]] += lengths[i];
        }
        for (int r = 0; r < ranks; r++) most = TM__MAX(most, tokens[r]);
        assert_true(n == 0 || most <= (total + (size_t)ranks - 1) / (size_t)ranks + longest);
    }
}

static void evens_out(void **state) {
    (void)state;
    /* 512 alone against 200 + 190 + 110 */
    const size_t lengths[] = {200, 512, 110, 190}, same[] = {64, 64, 64, 64, 64, 64};
    int owner[6];
    assert_ok(tm__share_divide(lengths, 4, 2, owner));
    assert_int_equal(owner[1], 0);
    assert_true(owner[0] == 1 && owner[2] == 1 && owner[3] == 1);
    assert_ok(tm__share_divide(same, 6, 3, owner));
    for (int i = 0; i < 6; i++) assert_int_equal(owner[i], i % 3);
    assert_ok(tm__share_divide(same, 1, 2, owner)); /* the second has nothing to do */
    assert_int_equal(owner[0], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(divides), cmocka_unit_test(evens_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
