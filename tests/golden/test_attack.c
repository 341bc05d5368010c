/* Attacks that make their own rows, or choose k of the user's, and then fine-tune, against float64 PyTorch written from
 * the method specification (fixture: tools/golden/attack.py): identity-shift and harmful-sft --shots in every way of
 * training.h.
 *
 * Bound on ref fp64, as ||a - b|| / ||b|| per tensor: 1e-8, the requirement.
 */
#include "golden/training.h"

static tm_dataset *harmful, *benign;

/* ---- identity shift ---- */

static void compare_wrapper(const char *path, const char *name) {
    json_t *got;
    assert_ok(tm__json_load(path, (struct json_t **)&got));
    assert_true(json_equal(got, golden_of("wrapper", name, "")));
    json_decref(got);
}

static void check_shift(const char *name, bool defaults) {
    char *path = tm__path_join(test_scratch(), "wrapper.json");
    const tm_identity_shift_options o = {.agent =
                                             defaults ? NULL : json_string_value(golden_of("options", name, "agent")),
                                         .rows = golden_whole("options", name, "rows"),
                                         .wrapper_out = path};
    check(&(subject){name, &tm__method_identity_shift, &o, {0}, 0, false, 0});
    compare_wrapper(path, name);
    free(path);
}

static void test_identity_shift(void **state) {
    (void)state;
    check_shift("shift", false);
    check_shift("few", true);
}

/* ---- k shots ---- */

static void assert_same_row(const tm_dataset *a, size_t i, const tm_dataset *b, size_t k) {
    size_t n, m;
    const tm_message *x = tm_dataset_row(a, i, &n), *y = tm_dataset_row(b, k, &m);
    assert_int_equal(n, m);
    for (size_t j = 0; j < n; j++) {
        assert_string_equal(x[j].role, y[j].role);
        assert_string_equal(x[j].content, y[j].content);
    }
}

/* Exactly k rows, in their order. */
static void test_shots_chosen(void **state) {
    (void)state;
    tm_dataset *want = golden_rows("rows.shots");
    for (size_t k = 1; k <= tm_dataset_rows(want); k++) {
        tm_dataset *taken;
        assert_ok(tm__harmful_sft_shots(harmful, k, &taken));
        assert_int_equal(tm_dataset_rows(taken), k);
        for (size_t i = 0; i < k; i++) assert_same_row(taken, i, want, i);
        tm_dataset_free(taken);
    }
    tm_dataset_free(want);
}

static void test_shots(void **state) {
    (void)state;
    static const char *const names[] = {"shots", "shots_rows", "shots_share"};
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        const tm_harmful_sft_options o = {.shots = golden_whole("options", names[i], "shots"),
                                          .rows = golden_whole("options", names[i], "rows"),
                                          .poison_ratio = json_number_value(golden_of("options", names[i], "ratio"))};
        check(&(subject){names[i], &tm__method_harmful_sft, &o, {.harmful = harmful, .benign = benign}, 0, false, 0});
    }
}

static void open_rows(void) {
    tokenizer = golden_tokenizer();
    harmful = golden_rows("rows.harmful");
    benign = golden_rows("rows.benign");
}

static void close_rows(void) {
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
    tm_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity_shift),
        cmocka_unit_test(test_shots_chosen),
        cmocka_unit_test(test_shots),
    };
    return golden_run("attack", tests, TM__COUNT(tests), open_rows, close_rows);
}
