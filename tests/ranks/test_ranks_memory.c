/* A process whose memory runs out where the gradients of others are to be added, because it had no row and so none of
 * its own yet: all end, and say whose memory it was. */
#include "methods.h"

static tm_status (*alloc)(tm_device *dev, size_t bytes, void **buffer);

static tm_status alloc_no_gradient(tm_device *dev, size_t bytes, void **buffer) {
    return dev->purpose == TM__FOR_GRADIENTS ? tm__fail_memory() : alloc(dev, bytes, buffer);
}

static void one_without_memory(void **state) {
    (void)state;
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_dataset *rows = tiny_rows("user", 3);
    tm_train_options o = methods_options(false);
    int last = tm_ranks_count() - 1;
    o.batch = 1;
    alloc = device->alloc;
    if (tm_ranks_rank() == last) device->alloc = alloc_no_gradient;
    assert_int_equal(tm_train(model, tokenizer, rows, &o, NULL, NULL), TM_NO_MEMORY);
    char whose[32];
    snprintf(whose, sizeof whose, "rank %d: out of memory", last);
    assert_non_null(strstr(tm_error_last()->line, tm_ranks_rank() == last ? "out of memory" : whose));
    tm_dataset_free(rows);
    tm_model_free(model);
    tm_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_without_memory)};
    int rank;
    tm_ranks_launched(&rank);
    if (rank != 0 && !freopen("/dev/null", "w", stdout)) return 1;
    if (tm_ranks_open() != TM_OK || tm_ranks_count() < 2) return 1;
    return tm_ranks_close(cmocka_run_group_tests(tests, tiny_setup, tiny_teardown));
}
