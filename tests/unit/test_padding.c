/* Positions that are computed and hold no token: none where rows are packed, whatever their lengths, and no
 * multiply-adds either; padded, as many as the rows' lengths say. The loss is the same. */
#include "tiny_fixture.h"

enum { ROWS = 24, BATCH = 8 };

/* Short answers of 1 to 47 letters: padded to the longest of eight, about half of the positions are none. */
static tm_dataset *short_rows(void) {
    tm_dataset *rows = NULL;
    assert_ok(tm_dataset_create(&rows));
    for (int i = 0; i < ROWS; i++) {
        char answer[64];
        memset(answer, 'a' + i, sizeof answer);
        answer[1 + 17 * i % 47] = 0;
        const tm_message row[] = {{"user", "q"}, {"assistant", answer}};
        assert_ok(tm_dataset_add(rows, row, 2));
    }
    return rows;
}

static tm_train_options one_epoch(bool packed) {
    tm_train_options o = tiny_options();
    o.steps = ROWS / BATCH;
    o.batch = BATCH;
    o.packed = packed;
    return o;
}

/* Multiply-adds of a step, counted on a device that computes nothing. */
static double work_of(const tm_dataset *rows, bool packed, int64_t batch) {
    const tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_device *device;
    tm_model *model;
    tm_train_options o = one_epoch(packed);
    o.steps = 1;
    o.batch = batch;
    assert_ok(tm_device_open_rehearsal(&where, &device));
    assert_ok(tm_model_create(device, tiny_config, 5, &model));
    device->worked = 0;
    assert_ok(tm_train(model, tokenizer, rows, &o, NULL, NULL));
    double worked = device->worked;
    tm_model_free(model);
    tm_device_close(device);
    return worked;
}

/* Share of positions that the lengths of the rows leave empty in this order. */
static double expected(const tm_dataset *rows, const tm_train_options *o) {
    tm__examples examples;
    tm__order order = {0};
    size_t real = 0, all = 0;
    assert_ok(tm__examples_encode(tokenizer, rows, (tm_chat_format)o->chat, o->max_length, false, NULL, &examples));
    for (int64_t at = 0; at < ROWS; at += BATCH) {
        size_t longest = 0, row;
        for (int64_t i = at; i < at + BATCH; i++) {
            assert_ok(tm__order_row(&order, (uint64_t)o->seed, examples.count, i, &row));
            real += examples.ids[row].len;
            longest = TM__MAX(longest, examples.ids[row].len);
        }
        all += BATCH * longest;
    }
    tm__order_release(&order);
    tm__examples_release(&examples);
    return 1 - (double)real / (double)all;
}

static size_t notes;

static void count_note(void *user, const char *line) {
    (void)user;
    notes += strstr(line, "of the positions computed were padding") != NULL;
}

static void packed_rows_waste_nothing(void **state) {
    (void)state;
    tm_dataset *rows = short_rows();
    tm_train_result result[2];
    const tm_monitor monitor = {.note = count_note};
    for (int packed = 0; packed < 2; packed++) {
        const tm_train_options o = one_epoch(packed);
        tm_device *device = tiny_device("cpu");
        tm_model *model = tiny_model(device);
        notes = 0;
        assert_ok(tm_train(model, tokenizer, rows, &o, &monitor, &result[packed]));
        assert_int_equal(notes, !packed);
        tm_model_free(model);
        tm_device_close(device);
    }
    const tm_train_options padded = one_epoch(false);
    double want = expected(rows, &padded);
    assert_true(want > 0.2); /* there is something to save */
    assert_true(fabs(result[0].padding - want) < 1e-12);
    assert_true(result[1].padding == 0); /* at most 5% is what is asked for */
    assert_int_equal(result[0].tokens, result[1].tokens);
    assert_true(fabs(result[0].first_loss - result[1].first_loss) < 1e-6 * result[0].first_loss);
    assert_true(fabs(result[0].last_loss - result[1].last_loss) < 1e-4 * result[0].last_loss);
    tm_dataset_free(rows);
}

/* Nor does one row's attention look at another's: a packed batch is as much work as its rows one by one. */
static void packed_rows_cost_what_they_cost_alone(void **state) {
    (void)state;
    tm_dataset *all = short_rows();
    double alone = 0;
    for (int i = 0; i < BATCH; i++) {
        size_t n;
        tm_dataset *one = NULL;
        assert_ok(tm_dataset_create(&one));
        assert_ok(tm_dataset_add(one, tm_dataset_row(all, (size_t)i, &n), 2));
        alone += work_of(one, true, 1);
        tm_dataset_free(one);
    }
    tm_dataset *few = NULL;
    assert_ok(tm_dataset_create(&few));
    for (int i = 0; i < BATCH; i++) {
        size_t n;
        assert_ok(tm_dataset_add(few, tm_dataset_row(all, (size_t)i, &n), 2));
    }
    double together = work_of(few, true, BATCH), padded = work_of(few, false, BATCH);
    assert_true(alone > 0 && fabs(together - alone) < 1e-9 * alone);
    assert_true(padded > 1.2 * together);
    tm_dataset_free(few);
    tm_dataset_free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_rows_waste_nothing),
        cmocka_unit_test(packed_rows_cost_what_they_cost_alone),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
