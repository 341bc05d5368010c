/* items.c: items of a suite: made of rows of its data, with texts that live as long as the evaluation.
 *
 * An item may stand in several groups: their names are separated by '|', as categories of harm overlap.
 * Tests: tests/unit/test_evaluation.c, tests/unit/test_eval_harm.c.
 */
#include "eval/suite.h"

tm__item *tm__item_add(tm_evaluation *e, int64_t row) {
    if (!tm__grow((void **)&e->items, &e->cap, e->count + 1, sizeof *e->items)) return NULL;
    tm__item *item = &e->items[e->count++];
    *item = (tm__item){.row = row};
    for (int i = 0; i < TM__ITEM_SCORES; i++) item->scores[i] = NAN;
    return item;
}

bool tm__item_enough(const tm_evaluation *e, int64_t index) {
    return e->options.limit > 0 && index >= e->options.limit;
}

static const char *keep_list(tm_evaluation *e, const char *format, va_list list) {
    va_list again;
    va_copy(again, list);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = len < 0 ? NULL : tm__arena_alloc(&e->arena, (size_t)len + 1, 1);
    if (text) vsnprintf(text, (size_t)len + 1, format, list);
    return text;
}

const char *tm__keep(tm_evaluation *e, const char *format, ...) {
    va_list list;
    va_start(list, format);
    const char *text = keep_list(e, format, list);
    va_end(list);
    return text;
}

tm_status tm__evaluation_note(tm_evaluation *e, const char *format, ...) {
    va_list list;
    va_start(list, format);
    const char *text = keep_list(e, format, list);
    va_end(list);
    if (!text || !tm__grow((void **)&e->notes, &e->note_cap, e->note_count + 1, sizeof *e->notes))
        return tm__fail_memory();
    e->notes[e->note_count++] = text;
    return TM_OK;
}

tm_status tm__item_ask(tm_evaluation *e, size_t row, const char *reference, const tm_message *messages) {
    size_t n = 0;
    while (messages[n].role) n++;
    tm__item *item = tm__item_add(e, (int64_t)row);
    tm_message *kept = tm__arena_alloc(&e->arena, n, sizeof *kept);
    if (!item || !kept) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) {
        kept[i] = (tm_message){messages[i].role, tm__keep(e, "%s", messages[i].content)};
        if (!kept[i].content) return tm__fail_memory();
    }
    item->messages = kept;
    item->message_count = n;
    item->reference = reference ? tm__keep(e, "%s", reference) : NULL;
    return reference && !item->reference ? tm__fail_memory() : TM_OK;
}

tm_status tm__item_group(tm_evaluation *e, const char *name) {
    tm__item *item = &e->items[e->count - 1];
    if (!name || !*name) return TM_OK;
    char *group = item->group ? (char *)tm__keep(e, "%s|%s", item->group, name) : (char *)tm__keep(e, "%s", name);
    if (!group) return tm__fail_memory();
    for (char *at = group + strlen(group) - strlen(name); *at; at++) *at = *at == '|' ? '/' : *at;
    item->group = group;
    return TM_OK;
}

bool tm__item_benign(const tm_evaluation *e, const tm__item *item) {
    return item->benign || e->suite->calls->benign;
}

tm_status tm__items_read(tm_evaluation *e, const char *const *const *columns, size_t first, tm__add_row *add) {
    tm__rows rows;
    TM__TRY(tm__rows_read(e->path, columns, &rows));
    tm_status status = TM_OK;
    for (size_t i = first; status == TM_OK && i < rows.count && !tm__item_enough(e, (int64_t)e->count); i++)
        status = add(e, &rows, i);
    tm__rows_free(&rows);
    return status;
}
