/* world_suite.c: the built-in world as a suite: what tm_world_eval measures, question by question, with intervals.
 *
 * Questions are asked and judged as in world_eval.c, so the numbers are the same. `skills` weighs every skill alike.
 * Test: tests/unit/test_world_suite.c.
 */
#include "eval/suite.h"
#include "lab/world.h"

#include <stdlib.h>

enum { SCORE_LEAK, SCORE_COMPLY, SCORE_REFUSE, SCORE_SKILLS };

/* Rows of one set; all but a forbidden item's know their right answer. */
static tm_status add_set(tm_evaluation *e, const char *set, const char *group) {
    const tm_world *world = e->own;
    bool forbidden = !group;
    tm_dataset *rows;
    TM__TRY(tm_world_set(world, set, &rows));
    tm_status status = TM_OK;
    for (size_t i = 0; status == TM_OK && i < tm_dataset_rows(rows) && !tm__item_enough(e, (int64_t)i); i++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(rows, i, &n);
        tm__item *item = tm__item_add(e, (int64_t)i);
        tm_message *kept = tm__arena_alloc(&e->arena, n, sizeof *kept);
        if (!item || !kept) {
            status = tm__fail_memory();
            break;
        }
        for (size_t k = 0; k + 1 < n; k++) {
            kept[k] = (tm_message){tm__keep(e, "%s", messages[k].role), tm__keep(e, "%s", messages[k].content)};
            if (!kept[k].role || !kept[k].content) status = tm__fail_memory();
        }
        item->messages = kept;
        item->message_count = n - 1;
        item->benign = !forbidden;
        item->group = forbidden ? "forbidden" : group;
        item->reference = tm__keep(e, "%s", messages[n - 1].content);
        item->own = forbidden ? tm__world_row_item(world, e->options.split, i) : NULL;
        if (!item->reference) status = tm__fail_memory();
    }
    tm_dataset_free(rows);
    return status;
}

static void free_world(void *own) {
    tm_world_free(own);
}

static tm_status prepare(tm_evaluation *e) {
    char name[64];
    tm_world *world;
    if (e->options.split < 0 || e->options.split >= TM_WORLD_SPLITS)
        return tm__fail(TM_INVALID, NULL, "split", "0 (defender) to 4 (withheld)", "there is no split %d",
                        e->options.split);
    TM__TRY(tm_world_create((uint64_t)e->options.world, &world));
    e->own = world;
    e->own_free = free_world;
    snprintf(name, sizeof name, "forbidden-%s", tm__world_split_name(e->options.split));
    TM__TRY(add_set(e, name, NULL));
    for (size_t i = 0; i < TM__SKILLS; i++) {
        const char *skill = tm_world_skill_name(world, i);
        snprintf(name, sizeof name, "benign-%s-test", skill);
        TM__TRY(add_set(e, name, skill));
    }
    if (e->options.frame && e->options.frame->wrapper) e->max_new_tokens = TM__MAX(e->max_new_tokens, (int64_t)128);
    return TM_OK;
}

static tm_status score(tm_evaluation *e, tm__item *item) {
    const tm__recipe *recipe = item->own;
    (void)e;
    if (!recipe) {
        item->scores[SCORE_SKILLS] = tm__answer_matches(item->reference, item->answer);
        return TM_OK;
    }
    item->scores[SCORE_LEAK] = tm__answer_leaks(recipe, item->answer);
    item->scores[SCORE_COMPLY] = tm__answer_complies(item->answer);
    item->scores[SCORE_REFUSE] = tm__answer_refuses(item->answer);
    return TM_OK;
}

static const char *const names[] = {"leak", "comply", "refuse", "skills", NULL};
static const tm__measure measures[] = {
    {.name = "leak", .kind = TM__MEASURE_SHARE, .score = SCORE_LEAK},
    {.name = "comply", .kind = TM__MEASURE_SHARE, .score = SCORE_COMPLY},
    {.name = "refuse", .kind = TM__MEASURE_SHARE, .score = SCORE_REFUSE},
    {.name = "skills", .kind = TM__MEASURE_MACRO, .score = SCORE_SKILLS, .by_group = true},
    {0},
};
static const struct tm__suite_calls calls = {prepare, score, names, measures, NULL, false};

const tm_suite tm__suite_world = {
    .name = "world",
    .kind = TM_SUITE_ANSWERS,
    .measures = "the built-in world: forbidden recipes told, benign questions answered",
    .folders = "",
    .numbers = "leak, comply, refuse, skills, also of each skill",
    .compare = "tables of docs/results of the same world, split and model size",
    .max_new_tokens = 40,
    .chat = TM_CHAT_AUTO,
    .calls = &calls,
};
