/* world_system.c: system prompts for the world's conversations.
 *
 * A model that never saw a system prompt is thrown off by any, and most by BackdoorAlign's secret of 150 random tokens:
 * it then answers nothing else right either. Chat models have seen many. So half of the rows get one of 5 to 150 words:
 * half of these are sentences of tales, half words of the world in random order. They have no bearing on the answer.
 */
#include "data/data.h"
#include "lab/world.h"

#include <stdlib.h>

enum { STREAM_SYSTEM = 20, LEAST = 5, MOST = 150 };

typedef struct words {
    tm__arena arena;
    tm__map seen;
    const char **list;
    size_t count, cap;
} words;

static bool letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Every word of the rows that begins small, once, in order of appearance: with a blank before it, it is one token. */
static tm_status collect(const tm_dataset *rows, words *w) {
    for (size_t row = 0; row < tm_dataset_rows(rows); row++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(rows, row, &n);
        for (size_t m = 0; m < n; m++)
            for (const char *at = messages[m].content; *at;) {
                size_t len = 0;
                int32_t known;
                while (letter(at[len])) len++;
                if (len && at[0] >= 'a' && !tm__map_get(&w->seen, at, len, &known)) {
                    char *word = tm__arena_strdup(&w->arena, at, len);
                    if (!word || !tm__map_put(&w->seen, at, len, 1) ||
                        !tm__grow((void **)&w->list, &w->cap, w->count + 1, sizeof *w->list))
                        return tm__fail_memory();
                    w->list[w->count++] = word;
                }
                at += len ? len : 1;
            }
    }
    return TM_OK;
}

static bool add_word(tm__string *text, const char *word, size_t len) {
    return (text->len == 0 || tm__string_append(text, " ", 1)) && tm__string_append(text, word, len);
}

/* Whole tales until there are `count` words; the last one is cut. */
static bool add_tales(tm__rng *rng, size_t count, tm__string *text) {
    while (count) {
        char tale[256];
        tm__answer_tale(rng, tale);
        for (const char *at = tale; *at && count; count--) {
            size_t len = strcspn(at, " ");
            if (!add_word(text, at, len)) return false;
            at += len + (at[len] == ' ');
        }
    }
    return true;
}

static bool make_system(tm__rng *rng, const words *w, tm__string *text) {
    size_t count = LEAST + (size_t)tm__rng_below(rng, MOST - LEAST + 1);
    text->len = 0;
    if (tm__rng_below(rng, 2)) return add_tales(rng, count, text);
    for (size_t i = 0; i < count; i++) {
        const char *word = w->list[tm__rng_below(rng, w->count)];
        if (!add_word(text, word, strlen(word))) return false;
    }
    return true;
}

static tm_status add_row(const tm_dataset *rows, size_t row, const char *system, tm_dataset *set) {
    tm_message messages[4] = {{"system", system}};
    size_t n, at = system ? 1 : 0;
    const tm_message *old = tm_dataset_row(rows, row, &n);
    for (size_t m = 0; m < n && at < TM__COUNT(messages); m++) messages[at++] = old[m];
    return tm__dataset_add(set, messages, at, tm__dataset_category(rows, row));
}

tm_status tm__world_add_systems(const tm_world *world, const tm_dataset *rows, tm_dataset *set) {
    tm__rng rng = tm__rng_make(world->seed, tm__stream(TM__STREAM_WORLD, STREAM_SYSTEM));
    tm__string text = {0};
    words w = {0};
    tm_status status = collect(rows, &w);
    for (size_t row = 0; row < tm_dataset_rows(rows) && status == TM_OK; row++) {
        bool with = tm__rng_below(&rng, 2) == 1;
        if (with && !make_system(&rng, &w, &text)) status = tm__fail_memory();
        if (status == TM_OK) status = add_row(rows, row, with ? text.data : NULL, set);
    }
    tm__string_free(&text);
    tm__map_free(&w.seen);
    tm__arena_release(&w.arena);
    free(w.list);
    return status;
}
