/* Any bytes as JSON and as a model's config.json: what is accepted can be written and reads back equal, what is refused
 * says where. */
#include "fuzz.h"
#include "model/model.h"

#include <jansson.h>

static void check_config(const uint8_t *data, size_t size) {
    tm__config config;
    tm_status status = tm__config_parse((const char *)data, size, "config.json", &config);
    if (status != TM_OK) {
        FUZZ_CHECK(tm_error_last()->status == status && tm_error_last()->file[0]);
        return;
    }
    tm__config_release(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *value = NULL, *again = NULL;
    char *text = NULL;
    size_t len;
    tm_error_clear();
    tm_status status = tm__json_parse((const char *)data, size, "input", &value);
    FUZZ_CHECK((status == TM_OK) == (value != NULL));
    if (value) {
        FUZZ_CHECK(tm__json_dump(value, JSON_COMPACT, &text, &len) == TM_OK);
        FUZZ_CHECK(tm__json_parse(text, len, "dumped", &again) == TM_OK);
        FUZZ_CHECK(json_equal(value, again));
        free(text);
        json_decref(again);
        json_decref(value);
    } else {
        FUZZ_CHECK(status == TM_FORMAT && tm_error_last()->file[0] && tm_error_last()->field[0]);
    }
    check_config(data, size);
    return 0;
}
