/* overlap.c: which prompts two data sets share.
 *
 * A prompt is the row's last user message with its Alpaca input behind it, runs of white space made one blank and none
 * left at the ends. It is known by the first 64 bits of its SHA-256: among a million prompts two different ones meet by
 * chance once in some ten million checks. Rows without a prompt (plain text) share nothing with any row.
 * Pinned by tests/unit/test_overlap.c.
 */
#include "data/data.h"

#include <stdlib.h>

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

typedef struct collapser {
    tm__sha256 hash;
    bool any, gap; /* something was hashed; a blank is due before what comes next */
} collapser;

static void feed(collapser *c, const char *text) {
    while (*text) {
        size_t n = 0;
        while (text[n] && !is_space(text[n])) n++;
        if (n > 0) {
            if (c->any && c->gap) tm__sha256_update(&c->hash, " ", 1);
            tm__sha256_update(&c->hash, text, n);
            c->any = true;
            c->gap = false;
        }
        text += n;
        if (*text) c->gap = true;
        while (is_space(*text)) text++;
    }
    c->gap = true; /* what follows is another message */
}

bool tm__prompt_hash(const tm_message *messages, size_t n, uint64_t *hash) {
    char hex[65], head[17];
    collapser c = {0};
    size_t i = n;
    while (i > 0 && strcmp(messages[i - 1].role, "user") != 0) i--;
    if (i == 0) return false;
    tm__sha256_init(&c.hash);
    feed(&c, messages[i - 1].content);
    if (i < n && strcmp(messages[i].role, "input") == 0) feed(&c, messages[i].content);
    if (!c.any) return false;
    tm__sha256_hex(&c.hash, hex);
    memcpy(head, hex, 16);
    head[16] = 0;
    *hash = strtoull(head, NULL, 16);
    return true;
}

static int compare(const void *a, const void *b) {
    const tm__prompt *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

tm_status tm__prompts_make(const tm_dataset *dataset, tm__prompt **prompts, size_t *count) {
    size_t rows = tm_dataset_rows(dataset), n = 0, kept = 0;
    tm__prompt *made = tm__alloc(rows ? rows : 1, sizeof *made);
    if (!made) return tm__fail_memory();
    for (size_t row = 0; row < rows; row++) {
        size_t messages;
        const tm_message *first = tm_dataset_row(dataset, row, &messages);
        made[n].row = row;
        n += tm__prompt_hash(first, messages, &made[n].hash);
    }
    qsort(made, n, sizeof *made, compare);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || made[kept - 1].hash != made[i].hash) made[kept++] = made[i];
    *prompts = made;
    *count = kept;
    return TM_OK;
}

tm_status tm_dataset_overlap(const tm_dataset *a, const tm_dataset *b, tm_overlap *overlap) {
    tm__prompt *x = NULL, *y = NULL;
    size_t nx = 0, ny = 0;
    tm_overlap found = {0};
    TM__TRY(tm__prompts_make(a, &x, &nx));
    tm_status status = tm__prompts_make(b, &y, &ny);
    for (size_t i = 0, j = 0; status == TM_OK && i < nx && j < ny;) {
        bool first = x[i].hash == y[j].hash && (found.prompts == 0 || x[i].row < found.row_a);
        if (first) found = (tm_overlap){found.prompts, x[i].row, y[j].row};
        found.prompts += x[i].hash == y[j].hash;
        bool next_a = x[i].hash <= y[j].hash, next_b = y[j].hash <= x[i].hash;
        i += next_a;
        j += next_b;
    }
    free(x);
    free(y);
    if (status == TM_OK) *overlap = found;
    return status;
}
