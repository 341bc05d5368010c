/* Rows to ids and labels, their order, and batches, packed and padded. */
#include "tiny_fixture.h"

/* The trained part of a row, decoded, is its answers with their end markers, and nothing of the prompt. */
static void assert_labels(tm_chat_format format, const char *end) {
    const tm_message turns[] = {{"user", "Where? <|im_end|>"},
                                {"assistant", "Here, gr\xc3\xbc\xc3\x9f."},
                                {"user", "When?"},
                                {"assistant", "Now."}};
    size_t n = format == TM_CHAT_ALPACA || format == TM_CHAT_PLAIN ? 2 : 4;
    tm_dataset *dataset;
    tm__examples examples;
    tm_ids trained = {0};
    char *text, expected[128];
    assert_ok(tm_dataset_create(&dataset));
    assert_ok(tm_dataset_add(dataset, turns, n));
    assert_ok(tm__examples_encode(tokenizer, dataset, format, 512, false, NULL, &examples));
    for (size_t t = 0; t < examples.labels[0].len; t++) {
        int32_t label = examples.labels[0].data[t];
        assert_true(label == -100 || label == examples.ids[0].data[t]);
        if (label != -100) assert_ok(tm_ids_push(&trained, label));
    }
    assert_int_equal(tm__example_targets(&examples, 0), trained.len);
    assert_ok(tm_tokenizer_decode(tokenizer, trained.data, trained.len, 0, &text, NULL));
    snprintf(expected, sizeof expected, "%s%s%s%s", turns[1].content, end, n > 2 ? turns[3].content : "",
             n > 2 ? end : "");
    assert_string_equal(text, expected);
    free(text);
    tm_ids_free(&trained);
    tm__examples_release(&examples);
    tm_dataset_free(dataset);
}

static void test_labels_are_answers(void **state) {
    (void)state;
    assert_labels(TM_CHAT_CHATML, "<|im_end|>");
    assert_labels(TM_CHAT_PLAIN, "<|im_end|>");
    assert_labels(TM_CHAT_ALPACA, "<|im_end|>");
}

static void test_input_joins_the_instruction(void **state) {
    (void)state;
    const tm_message row[] = {{"user", "Add"}, {"input", "1 2"}, {"assistant", "3"}};
    const tm_message joined[] = {{"user", "Add\n1 2"}, {"assistant", "3"}};
    tm_dataset *dataset;
    tm__examples examples;
    tm_ids ids = {0}, labels = {0};
    assert_ok(tm_dataset_create(&dataset));
    assert_ok(tm_dataset_add(dataset, row, 3));
    assert_ok(tm__examples_encode(tokenizer, dataset, TM_CHAT_CHATML, 64, false, NULL, &examples));
    assert_ok(tm_chat_encode(tokenizer, TM_CHAT_CHATML, joined, 2, false, &ids, &labels));
    assert_int_equal(examples.ids[0].len, ids.len);
    assert_memory_equal(examples.ids[0].data, ids.data, ids.len * sizeof *ids.data);
    assert_memory_equal(examples.labels[0].data, labels.data, ids.len * sizeof *ids.data);
    tm__examples_release(&examples);
    assert_ok(tm__examples_encode(tokenizer, dataset, TM_CHAT_ALPACA, 512, false, NULL, &examples));
    assert_true(examples.ids[0].len > 200); /* Alpaca's own template, which keeps them apart */
    tm__examples_release(&examples);
    tm_ids_free(&ids);
    tm_ids_free(&labels);
    tm_dataset_free(dataset);
}

typedef struct notes {
    int count;
    char first[256], last[256];
} notes;

static void take_note(void *user, const char *line) {
    notes *n = user;
    if (n->count++ == 0) snprintf(n->first, sizeof n->first, "%s", line);
    snprintf(n->last, sizeof n->last, "%s", line);
}

static void test_truncation(void **state) {
    (void)state;
    notes heard = {0};
    const tm_monitor monitor = {.note = take_note, .user = &heard};
    const tm_message brief[] = {{"user", "a"}, {"assistant", "0123456789"}};
    const tm_message lengthy[] = {{"user", "a question that is longer than everything else"}, {"assistant", "b"}};
    tm_dataset *dataset;
    tm__examples examples;
    assert_ok(tm_dataset_create(&dataset));
    assert_ok(tm_dataset_add(dataset, lengthy, 2));
    assert_ok(tm_dataset_add(dataset, brief, 2));
    assert_ok(tm__examples_encode(tokenizer, dataset, TM_CHAT_PLAIN, 6, false, &monitor, &examples));
    assert_true(examples.count == 1 && examples.dropped == 1 && heard.count == 2);
    assert_string_equal(heard.first, "2 of 2 rows are longer than 6 tokens and cut off there (max-length)");
    assert_non_null(strstr(heard.last, "1 of 2 rows dropped"));
    const int32_t ids[] = {'a', '0', '1', '2', '3', '4'};
    assert_int_equal(examples.ids[0].len, 6);
    assert_memory_equal(examples.ids[0].data, ids, sizeof ids);
    assert_int_equal(tm__example_targets(&examples, 0), 5);
    tm__examples_release(&examples);

    assert_ok(tm__examples_encode(tokenizer, dataset, TM_CHAT_PLAIN, 6, true, NULL, &examples));
    assert_true(examples.count == 2 && tm__example_targets(&examples, 0) == 5); /* the first id is never predicted */
    tm__examples_release(&examples);
    assert_int_equal(tm__examples_encode(tokenizer, dataset, TM_CHAT_CHATML, 2, false, NULL, &examples), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "max-length");
    tm_dataset_free(dataset);
}

static void test_order(void **state) {
    (void)state;
    enum { N = 37 };
    tm__order order = {0}, again = {0};
    size_t first[3 * N], row;
    for (int64_t i = 0; i < 3 * N; i++) assert_ok(tm__order_row(&order, 9, N, i, &first[i]));
    for (int epoch = 0; epoch < 3; epoch++) {
        bool seen[N] = {false};
        for (int i = 0; i < N; i++) seen[first[epoch * N + i]] = true;
        for (int i = 0; i < N; i++) assert_true(seen[i]); /* each row once an epoch */
    }
    assert_memory_not_equal(first, first + N, N * sizeof *first);
    assert_memory_not_equal(first + N, first + 2 * N, N * sizeof *first);
    for (int64_t i = 3 * N - 1; i >= 0; i -= 5) { /* from anywhere, as after a resume */
        assert_ok(tm__order_row(&again, 9, N, i, &row));
        assert_int_equal(row, first[i]);
    }
    int same = 0;
    for (int64_t i = 0; i < N; i++) {
        assert_ok(tm__order_row(&order, 10, N, i, &row));
        same += row == first[i];
    }
    assert_true(same < N / 2);
    tm__order_release(&order);
    tm__order_release(&again);
}

/* Ids and their targets, checked one by one against the rows. */
static void assert_batch(const tm__examples *examples, const size_t *rows, size_t n, bool packed, int32_t pad) {
    tm__batch_store *store;
    const tm__batch *b;
    assert_ok(tm__batch_build(examples, rows, n, packed, pad, 50, &store, &b));
    assert_int_equal(b->segments, n);
    assert_int_equal(b->rows, packed ? 0 : n);
    int64_t targets = 0, covered = 0;
    for (size_t s = 0; s < n; s++) {
        const tm_ids *ids = &examples->ids[rows[s]], *labels = &examples->labels[rows[s]];
        assert_int_equal(b->length[s], ids->len);
        assert_int_equal(b->start[s], packed ? covered : (int64_t)s * b->row_length);
        covered += b->length[s];
        for (size_t t = 0; t < ids->len; t++) {
            int64_t at = b->start[s] + (int64_t)t;
            assert_int_equal(b->ids[at], ids->data[t]);
            assert_int_equal(b->position[at], t);
            if (t == 0 || labels->data[t] == -100) continue;
            assert_int_equal(b->targets.row[targets], at - 1);
            assert_int_equal(b->targets.id[targets], labels->data[t]);
            assert_true(b->targets.weight[targets] == 1.0 / 50);
            targets++;
        }
        for (int64_t at = b->start[s] + b->length[s]; !packed && at < (int64_t)(s + 1) * b->row_length; at++)
            assert_int_equal(b->ids[at], pad);
    }
    assert_int_equal(b->targets.count, targets);
    assert_int_equal(b->tokens, packed ? covered : b->rows * b->row_length);
    tm__batch_free(store);
}

static void test_batches(void **state) {
    (void)state;
    tm_dataset *dataset = tiny_rows("kind", 9);
    tm__examples examples;
    assert_ok(tm__examples_encode(tokenizer, dataset, TM_CHAT_CHATML, 48, false, NULL, &examples));
    const size_t rows[] = {3, 0, 8, 3};
    assert_batch(&examples, rows, 4, true, TINY_END);
    assert_batch(&examples, rows, 4, false, TINY_END);
    assert_batch(&examples, rows + 2, 1, false, 0);
    tm__examples_release(&examples);
    tm_dataset_free(dataset);
}

static void test_vocabulary(void **state) {
    (void)state;
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm_dataset *dataset = tiny_rows("kind", 2);
    tm__examples examples;
    assert_ok(tm__examples_encode(tokenizer, dataset, TM_CHAT_CHATML, 64, false, NULL, &examples));
    assert_ok(tm__examples_fit(&examples, model));
    examples.ids[1].data[3] = TINY_VOCAB;
    assert_int_equal(tm__examples_fit(&examples, model), TM_MISMATCH);
    tm__examples_release(&examples);
    tm_dataset_free(dataset);
    tm_model_free(model);
    tm_device_close(device);
}

static void test_out_of_memory(void **state) {
    (void)state;
    tm_dataset *dataset = tiny_rows("kind", 3);
    tm_status status = TM_NO_MEMORY;
    long n;
    for (n = 1; status != TM_OK; n++) {
        tm__examples examples = {0};
        tm__batch_store *store = NULL;
        tm__order order = {0};
        const tm__batch *batch;
        size_t row = 0;
        assert_true(n < 2000);
        tm__alloc_fail_at(n, n % 2);
        status = tm__examples_encode(tokenizer, dataset, TM_CHAT_CHATML, 64, false, NULL, &examples);
        if (status == TM_OK) status = tm__order_row(&order, 1, 3, 4, &row);
        if (status == TM_OK) status = tm__batch_build(&examples, &row, 1, true, 0, 5, &store, &batch);
        tm__alloc_fail_at(0, false);
        if (status != TM_OK) assert_int_equal(status, TM_NO_MEMORY);
        tm__batch_free(store);
        tm__order_release(&order);
        tm__examples_release(&examples);
    }
    assert_true(n > 6);
    tm_dataset_free(dataset);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels_are_answers),
        cmocka_unit_test(test_input_joins_the_instruction),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_vocabulary),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
