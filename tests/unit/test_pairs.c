/* RepNoise's pairs: rows of unequal length, partners found by prompt, the published code's text, the longest row. */
#include "methods.h"

#include "method/repnoise.h"

enum { ROWS = 7 };

static tm_dataset *harmful, *refusals;

static void add_row(tm_dataset *rows, int number, const char *answer) {
    char prompt[32];
    snprintf(prompt, sizeof prompt, "how %d?", number);
    const tm_message row[] = {{"user", prompt}, {"assistant", answer}};
    assert_ok(tm_dataset_add(rows, row, 2));
}

/* Refusals stand in another order than the harmful rows. */
static int setup(void **state) {
    assert_ok(tm_dataset_create(&harmful));
    assert_ok(tm_dataset_create(&refusals));
    for (int i = 0; i < ROWS; i++) {
        add_row(harmful, i, i % 2 ? "boil ember" : "mix dune and fern");
        add_row(refusals, (i + 3) % ROWS, i % 2 ? "I will not help." : "No; I can not do that.");
    }
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(harmful);
    tm_dataset_free(refusals);
    return tiny_teardown(state);
}

static void encode(const tm_dataset *bad, const tm_dataset *good, int mode, int64_t max_length, tm__pairs *pairs) {
    const tm_method_data data = {.harmful = bad, .refusals = good};
    tm_train_options how = methods_options(false);
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm__job job;
    how.max_length = max_length;
    assert_ok(tm__job_begin(&job, &tm__method_repnoise, model, tokenizer, &data, &how, NULL, NULL));
    assert_ok(tm__pairs_encode(&job, mode, pairs));
    tm_model_free(model);
    tm_device_close(device);
}

static void test_partners_are_found_by_prompt(void **state) {
    (void)state;
    tm_dataset *sorted;
    tm__pairs pairs[2];
    assert_ok(tm_dataset_create(&sorted));
    for (size_t i = 0; i < ROWS; i++) assert_ok(tm_dataset_append(sorted, refusals, (i + ROWS - 3) % ROWS, 1));
    for (int k = 0; k < 2; k++) {
        encode(harmful, k ? sorted : refusals, TM__PAIRS_CORRECT, 512, &pairs[k]);
        assert_int_equal(pairs[k].side[TM__REFUSAL].count, ROWS);
    }
    for (size_t i = 0; i < ROWS; i++) {
        const tm_ids *a = &pairs[0].side[TM__REFUSAL].ids[i], *b = &pairs[1].side[TM__REFUSAL].ids[i];
        assert_int_equal(a->len, b->len);
        assert_memory_equal(a->data, b->data, a->len * sizeof *a->data);
    }
    for (int k = 0; k < 2; k++) tm__pairs_release(&pairs[k]);
    tm_dataset_free(sorted);
}

static void assert_text(const tm_ids *ids, const char *want) {
    char *text;
    size_t len;
    assert_ok(tm_tokenizer_decode(tokenizer, ids->data, ids->len, TM_DECODE_SKIP_SPECIAL, &text, &len));
    assert_string_equal(text, want);
    free(text);
}

static void test_published_text(void **state) {
    (void)state;
    tm__pairs pairs;
    encode(harmful, refusals, TM__PAIRS_COMPAT, 512, &pairs);
    assert_text(&pairs.side[TM__HARMFUL].ids[0], "Question: how 0?\nAnswer: mix dune and fern");
    assert_text(&pairs.side[TM__REFUSAL].ids[0], "Question: how 0?\nAnswer: No; I can not do that.");
    tm__pairs_release(&pairs);
}

static void test_longest_row(void **state) {
    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        tm__pairs pairs;
        encode(harmful, refusals, mode, 60, &pairs);
        for (int s = 0; s < TM__SIDES; s++)
            for (size_t i = 0; i < pairs.side[s].count; i++) assert_true(pairs.side[s].ids[i].len <= 60);
        int64_t most = (int64_t)pairs.side[TM__REFUSAL].ids[0].len - 2;
        tm__pairs_release(&pairs);
        encode(harmful, refusals, mode, most, &pairs);
        assert_int_equal(pairs.side[TM__REFUSAL].ids[0].len, most);
        tm__pairs_release(&pairs);
    }
}

/* ---- masks ------------------------------------------------------------------------------------------------------- */

static tm_ids ids_of(const int32_t *list, size_t n) {
    tm_ids ids = {0};
    for (size_t i = 0; i < n; i++) assert_ok(tm_ids_push(&ids, list[i]));
    return ids;
}

/* correct: past the other row's end everything is a target, also what looks like padding. A pair of which one row is
 * the beginning of the other has no target on that side and is dropped. */
static void test_rows_of_unequal_length(void **state) {
    (void)state;
    const int32_t a[] = {5, 10, 9}, b[] = {5, 20}, pad = 9;
    tm__pairs pairs;
    tm_ids left = ids_of(a, 3), right = ids_of(b, 2);
    assert_ok(tm__pairs_create(&pairs, 3, TM__PAIRS_CORRECT, pad));
    assert_ok(tm__pairs_add(&pairs, &left, &right));
    assert_memory_equal(pairs.side[TM__HARMFUL].labels[0].data, ((int32_t[]){-100, 10, 9}), 3 * sizeof *a);
    assert_memory_equal(pairs.side[TM__REFUSAL].labels[0].data, ((int32_t[]){-100, 20}), 2 * sizeof *a);
    assert_memory_equal(pairs.mask[0], ((uint8_t[]){0, 1, 1}), 3);
    for (size_t shorter = 0; shorter < 2; shorter++) {
        left = ids_of(a, 3 - shorter);
        right = ids_of(a, 2 + shorter);
        assert_ok(tm__pairs_add(&pairs, &left, &right));
        assert_int_equal(pairs.dropped, shorter + 1);
        assert_int_equal(pairs.side[0].count, 1);
    }
    tm__pairs_release(&pairs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partners_are_found_by_prompt),
        cmocka_unit_test(test_published_text),
        cmocka_unit_test(test_longest_row),
        cmocka_unit_test(test_rows_of_unequal_length),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
