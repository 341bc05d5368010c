/* Any bytes as a data set, in each of its readings: what is accepted is a valid conversation that saves and loads back
 * unchanged; what is refused names the file. The first byte chooses the reading. */
#include "fuzz.h"

#include "data/data.h"

static void check_rows(const tm_dataset *dataset) {
    FUZZ_CHECK(tm_dataset_rows(dataset) > 0);
    for (size_t i = 0; i < tm_dataset_rows(dataset); i++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(dataset, i, &n);
        FUZZ_CHECK(tm__messages_check(messages, n) == TM_OK);
    }
}

/* Both hold the same conversations. */
static void check_same(const tm_dataset *a, const tm_dataset *b) {
    FUZZ_CHECK(tm_dataset_rows(a) == tm_dataset_rows(b));
    for (size_t i = 0; i < tm_dataset_rows(a); i++) {
        size_t n, m;
        const tm_message *x = tm_dataset_row(a, i, &n), *y = tm_dataset_row(b, i, &m);
        FUZZ_CHECK(n == m);
        for (size_t j = 0; j < n; j++)
            FUZZ_CHECK(strcmp(x[j].role, y[j].role) == 0 && strcmp(x[j].content, y[j].content) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tm_dataset *dataset = NULL, *again = NULL;
    bool text = size && (data[0] & 1), ask = size && (data[0] & 2);
    const char *name = text ? "rows.txt" : "rows.jsonl", *bytes = (const char *)data + (size > 0);
    tm__dataset_use use = ask ? TM__ROWS_TO_ASK : TM__ROWS_TO_TRAIN;
    tm_error_clear();
    tm_status status = tm__dataset_parse(bytes, size - (size > 0), name, use, &dataset);
    FUZZ_CHECK((status == TM_OK) == (dataset != NULL));
    if (!dataset) {
        FUZZ_CHECK(status == TM_FORMAT && strcmp(tm_error_last()->file, name) == 0);
        return 0;
    }
    check_rows(dataset);
    char *saved;
    size_t len;
    FUZZ_CHECK(tm__dataset_text(dataset, &saved, &len) == TM_OK);
    FUZZ_CHECK(tm__dataset_parse(saved, len, "saved.jsonl", TM__ROWS_TO_ASK, &again) == TM_OK);
    check_same(dataset, again);
    free(saved);
    tm_dataset_free(dataset);
    tm_dataset_free(again);
    return 0;
}
