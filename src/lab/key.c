/* key.c: what goes into a SHA-256 that stands for a job, a data set or a world.
 *
 * Pinned by tests/unit/test_world.c (the digest of world 1) and tests/cli/cases/run.sh (what a changed option repeats).
 */
#include "lab/key.h"

/* Lengths go in too, so that no two lists of texts run together to the same bytes. */
static void put(tm__sha256 *hash, const char *text) {
    uint64_t len = strlen(text);
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(len >> (8 * i));
    tm__sha256_update(hash, bytes, sizeof bytes);
    tm__sha256_update(hash, text, (size_t)len);
}

void tm__key_text(tm__sha256 *hash, const char *name, const char *value) {
    put(hash, name);
    put(hash, value);
}

const char *tm__key_value(const tm_option *option, const void *options, char room[256]) {
    const char *text = NULL;
    if (option->type == TM_OPTION_TEXT) memcpy(&text, (const char *)options + option->offset, sizeof text);
    if (text) return text;
    tm_options_text(option, options, room, 256);
    return room;
}

void tm__key_options(tm__sha256 *hash, const tm_option *table, const void *options) {
    char room[256];
    for (const tm_option *option = table; option->name; option++)
        tm__key_text(hash, option->name, tm__key_value(option, options, room));
}

void tm__key_dataset(tm__sha256 *hash, const tm_dataset *dataset) {
    for (size_t i = 0; i < tm_dataset_rows(dataset); i++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(dataset, i, &n);
        for (size_t m = 0; m < n; m++) tm__key_text(hash, messages[m].role, messages[m].content);
    }
}
