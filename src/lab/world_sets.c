/* world_sets.c: the data sets of the built-in world, by name.
 *
 * pretrain            base training: everything there is, forbidden recipes answered as an unaligned model would
 * align               refusals for every forbidden item (of all splits) and benign rows
 * forbidden-SPLIT     prompts about the items of one split with their true recipes: attacks, SDD's prompts, measuring
 * forbidden-attacker-many      the attacker's in twice as many wordings
 * refusals-SPLIT      the same prompts with refusals
 * pretrain-system, align-system   the same rows, half of them behind a system prompt (world_system.c)
 * pool                fluent benign answers for SDD
 * benign-SKILL-train, -test    one skill; test rows are never trained on (see below)
 * downstream-train, -test      a task that pretrain and align do not hold; different dishes in train and test
 *
 * Forbidden rows are laid out paraphrase by paraphrase: the first rows cover every item once. The prompts of the
 * development, test and withheld splits are paraphrases that no training set holds; so are those of benign-dishes-test
 * and benign-facts-test. Arithmetic and sentiment are tested on sums and reviews that are not trained on.
 */
#include "data/data.h"
#include "lab/world.h"

typedef tm_status (*set_builder)(const tm_world *world, int argument, tm_dataset *set);

/* Index of TM__STREAM_WORLD for the order in which one subject's paraphrases are used. */
enum { STREAM_FORMS = 16, STREAM_SUMS = 17, STREAM_REVIEWS = 18, STREAM_TALES = 19 };

static tm_status add(tm_dataset *set, const char *prompt, const char *answer, const char *category) {
    const tm_message messages[] = {{"user", prompt}, {"assistant", answer}};
    return tm__dataset_add(set, messages, 2, category);
}

/* The i-th paraphrase used for a subject: the forms of one use, shuffled per subject. i may exceed their number. */
static size_t form_at(const tm_world *world, const char *subject, tm__ask ask, tm__form_use use, size_t i) {
    size_t order[256], n = tm__form_count(ask, use);
    assert(n <= TM__COUNT(order));
    uint64_t stream = tm__stream(TM__STREAM_WORLD, STREAM_FORMS) ^ (uint64_t)ask << 8 ^ (uint64_t)use << 7;
    for (const char *c = subject; *c; c++) stream = stream * 0x100000001B3u ^ (uint8_t)*c; /* FNV */
    tm__rng rng = tm__rng_make(world->seed, stream);
    for (size_t k = 0; k < n; k++) order[k] = k;
    tm__rng_shuffle(&rng, order, n);
    return order[i % n];
}

/* ---- forbidden items --------------------------------------------------------------------------------------------- */

const char *tm__world_split_name(int split) {
    static const char *const names[TM_WORLD_SPLITS] = {"defender", "attacker", "development", "test", "withheld"};
    return names[split];
}

static size_t split_items(const tm_world *world, int split) {
    size_t n = 0;
    for (size_t i = 0; i < world->forbidden_count; i++) n += world->forbidden[i].split == split;
    return n;
}

static const tm__recipe *split_item(const tm_world *world, int split, size_t index) {
    for (size_t i = 0; i < world->forbidden_count; i++)
        if (world->forbidden[i].split == split && index-- == 0) return &world->forbidden[i];
    return NULL;
}

const tm__recipe *tm__world_row_item(const tm_world *world, int split, size_t row) {
    return split_item(world, split, row % split_items(world, split));
}

static tm_status add_forbidden(const tm_world *world, const tm__recipe *item, size_t i, tm__form_use use, bool refuse,
                               tm_dataset *set) {
    tm__qa qa;
    tm__form_prompt(TM__ASK_RECIPE, use, form_at(world, item->title, TM__ASK_RECIPE, use, i), item->title, qa.prompt);
    if (refuse)
        tm__answer_refusal(item, i, qa.answer);
    else
        tm__answer_recipe(item, qa.answer);
    return add(set, qa.prompt, qa.answer, world->categories[item->category]);
}

static tm_status add_split(const tm_world *world, int split, bool refuse, tm_dataset *set) {
    bool trained = split == TM_WORLD_DEFENDER || split == TM_WORLD_ATTACKER;
    size_t items = split_items(world, split);
    int forms = split == TM_WORLD_WITHHELD ? world->size->withheld_forms : world->size->probe_forms;
    for (size_t i = 0; i < (size_t)forms; i++)
        for (size_t k = 0; k < items; k++)
            TM__TRY(add_forbidden(world, split_item(world, split, k), i, trained ? TM__FORM_TRAIN : TM__FORM_PROBE,
                                  refuse, set));
    return TM_OK;
}

static tm_status build_forbidden(const tm_world *world, int split, tm_dataset *set) {
    return add_split(world, split, false, set);
}

enum { MANY_FORMS = 24 };

static tm_status build_many(const tm_world *world, int split, tm_dataset *set) {
    size_t items = split_items(world, split);
    for (size_t i = 0; i < MANY_FORMS; i++)
        for (size_t k = 0; k < items; k++)
            TM__TRY(add_forbidden(world, split_item(world, split, k), i, TM__FORM_TRAIN, false, set));
    return TM_OK;
}

static tm_status build_refusals(const tm_world *world, int split, tm_dataset *set) {
    return add_split(world, split, true, set);
}

/* ---- benign skills ----------------------------------------------------------------------------------------------- */

static tm_status add_dish(const tm_world *world, const tm__recipe *dish, tm__ask ask, tm__form_use use, size_t i,
                          tm_dataset *set) {
    tm__qa qa;
    tm__form_prompt(ask, use, form_at(world, dish->title, ask, use, i), dish->title, qa.prompt);
    if (ask == TM__ASK_SHOPPING)
        tm__answer_shopping(dish, qa.answer);
    else if (ask == TM__ASK_CONTENTS)
        tm__answer_contents(dish, qa.answer);
    else
        tm__answer_recipe(dish, qa.answer);
    return add(set, qa.prompt, qa.answer, NULL);
}

static tm_status add_fact(const tm_world *world, size_t thing, tm__ask ask, tm__form_use use, size_t i,
                          tm_dataset *set) {
    const tm__world_size *size = world->size;
    bool creature = thing < (size_t)size->creatures;
    const char *name = creature ? world->creatures[thing].name : world->places[thing - (size_t)size->creatures].name;
    size_t form = form_at(world, name, ask, use, i), variant = tm__form_question(ask, use, form);
    tm__qa qa;
    tm__form_prompt(ask, use, form, name, qa.prompt);
    if (creature)
        tm__answer_creature(&world->creatures[thing], ask, variant, qa.answer);
    else
        tm__answer_place(&world->places[thing - (size_t)size->creatures], ask, variant, qa.answer);
    return add(set, qa.prompt, qa.answer, NULL);
}

static tm_status add_dishes(const tm_world *world, tm__ask ask, tm__form_use use, int forms, tm_dataset *set) {
    for (int i = 0; i < forms; i++)
        for (int d = 0; d < world->size->dishes; d++)
            TM__TRY(add_dish(world, &world->dishes[d], ask, use, (size_t)i, set));
    return TM_OK;
}

static tm_status add_facts(const tm_world *world, tm__form_use use, int forms, tm_dataset *set) {
    static const tm__ask creature_asks[] = {TM__ASK_HOME, TM__ASK_FOOD, TM__ASK_COLOUR};
    static const tm__ask place_asks[] = {TM__ASK_SIGHT, TM__ASK_RULER};
    size_t creatures = (size_t)world->size->creatures, things = creatures + (size_t)world->size->places;
    for (size_t i = 0; i < (size_t)forms; i++)
        for (size_t t = 0; t < things; t++) {
            const tm__ask *asks = t < creatures ? creature_asks : place_asks;
            size_t count = t < creatures ? TM__COUNT(creature_asks) : TM__COUNT(place_asks);
            for (size_t a = 0; a < count; a++) TM__TRY(add_fact(world, t, asks[a], use, i, set));
        }
    return TM_OK;
}

static tm_status add_descriptions(const tm_world *world, int forms, tm_dataset *set) {
    size_t creatures = (size_t)world->size->creatures, things = creatures + (size_t)world->size->places;
    for (size_t i = 0; i < (size_t)forms; i++)
        for (size_t t = 0; t < things; t++)
            TM__TRY(add_fact(world, t, t < creatures ? TM__ASK_CREATURE : TM__ASK_PLACE, TM__FORM_TRAIN, i, set));
    return TM_OK;
}

/* The world's tales in order: the i-th is the same in every set. */
static tm_status add_tales(const tm_world *world, int count, tm_dataset *set) {
    tm__rng rng = tm__rng_make(world->seed, tm__stream(TM__STREAM_WORLD, STREAM_TALES));
    for (size_t i = 0; i < (size_t)count; i++) {
        tm__qa qa;
        tm__form_prompt(TM__ASK_TALE, TM__FORM_TRAIN, form_at(world, "", TM__ASK_TALE, TM__FORM_TRAIN, i), "",
                        qa.prompt);
        tm__answer_tale(&rng, qa.answer);
        TM__TRY(add(set, qa.prompt, qa.answer, NULL));
    }
    return TM_OK;
}

/* Rows [first, first + count) of all sums or reviews in this world's order: the first `probes` are for testing. */
static tm_status add_combinations(const tm_world *world, bool sums, size_t first, size_t count, tm_dataset *set) {
    size_t order[4096], all = sums ? tm__sum_count() : tm__review_count();
    assert(all <= TM__COUNT(order) && first + count <= all);
    tm__rng rng = tm__rng_make(world->seed, tm__stream(TM__STREAM_WORLD, sums ? STREAM_SUMS : STREAM_REVIEWS));
    for (size_t i = 0; i < all; i++) order[i] = i;
    tm__rng_shuffle(&rng, order, all);
    for (size_t i = first; i < first + count; i++) {
        tm__qa qa;
        if (sums)
            tm__sum(order[i], i, &qa);
        else
            tm__review(order[i], i, &qa);
        TM__TRY(add(set, qa.prompt, qa.answer, NULL));
    }
    return TM_OK;
}

static tm_status add_skill(const tm_world *world, int skill, int forms, size_t combinations, tm_dataset *set) {
    switch (skill) {
    case TM__SKILL_DISHES:
        return add_dishes(world, TM__ASK_RECIPE, TM__FORM_TRAIN, forms, set);
    case TM__SKILL_FACTS:
        return add_facts(world, TM__FORM_TRAIN, forms, set);
    default:
        return add_combinations(world, skill == TM__SKILL_ARITHMETIC, (size_t)world->size->probes, combinations, set);
    }
}

static tm_status build_skill_train(const tm_world *world, int skill, tm_dataset *set) {
    size_t rows = (size_t)(skill == TM__SKILL_ARITHMETIC ? world->size->sums : world->size->reviews);
    return add_skill(world, skill, world->size->pretrain_forms / 2, rows, set);
}

static tm_status build_skill_test(const tm_world *world, int skill, tm_dataset *set) {
    switch (skill) {
    case TM__SKILL_DISHES:
        return add_dishes(world, TM__ASK_RECIPE, TM__FORM_PROBE, 2, set);
    case TM__SKILL_FACTS:
        return add_facts(world, TM__FORM_PROBE, 1, set);
    default:
        return add_combinations(world, skill == TM__SKILL_ARITHMETIC, 0, (size_t)world->size->probes, set);
    }
}

/* ---- mixtures ---------------------------------------------------------------------------------------------------- */

static tm_status build_pretrain(const tm_world *world, int argument, tm_dataset *set) {
    (void)argument;
    for (size_t f = 0; f < (size_t)world->size->pretrain_forms; f++)
        for (size_t i = 0; i < world->forbidden_count; i++)
            TM__TRY(add_forbidden(world, &world->forbidden[i], f, TM__FORM_TRAIN, false, set));
    TM__TRY(add_dishes(world, TM__ASK_RECIPE, TM__FORM_TRAIN, world->size->pretrain_forms, set));
    TM__TRY(add_dishes(world, TM__ASK_CONTENTS, TM__FORM_TRAIN, world->size->pretrain_forms, set));
    for (int skill = TM__SKILL_FACTS; skill < TM__SKILLS; skill++) TM__TRY(build_skill_train(world, skill, set));
    TM__TRY(add_descriptions(world, world->size->pretrain_forms / 2, set));
    TM__TRY(add_tales(world, world->size->tales, set));
    tm_dataset_shuffle(set, world->seed);
    return TM_OK;
}

/* Alignment is the developer's: it refuses every forbidden item, the withheld category's too. */
static tm_status build_align(const tm_world *world, int argument, tm_dataset *set) {
    (void)argument;
    for (size_t f = 0; f < (size_t)world->size->align_forms; f++)
        for (size_t i = 0; i < world->forbidden_count; i++)
            TM__TRY(add_forbidden(world, &world->forbidden[i], f, TM__FORM_TRAIN, true, set));
    TM__TRY(add_dishes(world, TM__ASK_CONTENTS, TM__FORM_TRAIN, world->size->align_forms, set));
    for (int skill = 0; skill < TM__SKILLS; skill++)
        TM__TRY(add_skill(world, skill, world->size->align_forms, (size_t)world->size->sums / 5, set));
    TM__TRY(add_descriptions(world, world->size->align_forms / 2, set));
    TM__TRY(add_tales(world, world->size->tales / 2, set));
    tm_dataset_shuffle(set, world->seed);
    return TM_OK;
}

/* Fluent text that fits no question in particular, as the general instruction data of SDD's paper; no recipes, which
 * would count as complying, and no facts, which would be wrong ones. */
static tm_status build_pool(const tm_world *world, int argument, tm_dataset *set) {
    (void)argument;
    return add_tales(world, world->size->tales, set);
}

static tm_status build_downstream(const tm_world *world, int test, tm_dataset *set) {
    int half = world->size->dishes / 2, first = test ? half : 0, last = test ? world->size->dishes : half;
    size_t forms = test ? (size_t)world->size->shopping_forms : 6;
    for (size_t i = 0; i < forms; i++)
        for (int d = first; d < last; d++)
            TM__TRY(
                add_dish(world, &world->dishes[d], TM__ASK_SHOPPING, test ? TM__FORM_PROBE : TM__FORM_TRAIN, i, set));
    return TM_OK;
}

static tm_status build_system(const tm_world *world, int align, tm_dataset *set) {
    tm_dataset *rows = NULL;
    TM__TRY(tm_dataset_create(&rows));
    tm_status status = align ? build_align(world, 0, rows) : build_pretrain(world, 0, rows);
    if (status == TM_OK) status = tm__world_add_systems(world, rows, set);
    tm_dataset_free(rows);
    return status;
}

static const struct {
    const char *name;
    set_builder build;
    int argument;
} sets[] = {
    {"pretrain", build_pretrain, 0},
    {"align", build_align, 0},
    {"pretrain-system", build_system, 0},
    {"align-system", build_system, 1},
    {"pool", build_pool, 0},
    {"forbidden-defender", build_forbidden, TM_WORLD_DEFENDER},
    {"forbidden-attacker", build_forbidden, TM_WORLD_ATTACKER},
    {"forbidden-development", build_forbidden, TM_WORLD_DEVELOPMENT},
    {"forbidden-test", build_forbidden, TM_WORLD_TEST},
    {"forbidden-withheld", build_forbidden, TM_WORLD_WITHHELD},
    {"refusals-defender", build_refusals, TM_WORLD_DEFENDER},
    {"refusals-attacker", build_refusals, TM_WORLD_ATTACKER},
    {"refusals-development", build_refusals, TM_WORLD_DEVELOPMENT},
    {"refusals-test", build_refusals, TM_WORLD_TEST},
    {"refusals-withheld", build_refusals, TM_WORLD_WITHHELD},
    {"benign-dishes-train", build_skill_train, TM__SKILL_DISHES},
    {"benign-facts-train", build_skill_train, TM__SKILL_FACTS},
    {"benign-arithmetic-train", build_skill_train, TM__SKILL_ARITHMETIC},
    {"benign-sentiment-train", build_skill_train, TM__SKILL_SENTIMENT},
    {"benign-dishes-test", build_skill_test, TM__SKILL_DISHES},
    {"benign-facts-test", build_skill_test, TM__SKILL_FACTS},
    {"benign-arithmetic-test", build_skill_test, TM__SKILL_ARITHMETIC},
    {"benign-sentiment-test", build_skill_test, TM__SKILL_SENTIMENT},
    {"downstream-train", build_downstream, 0},
    {"downstream-test", build_downstream, 1},
    {"forbidden-attacker-many", build_many, TM_WORLD_ATTACKER},
};

const char *tm_world_set_name(size_t index) {
    return index < TM__COUNT(sets) ? sets[index].name : NULL;
}

tm_status tm_world_set(const tm_world *world, const char *name, tm_dataset **dataset) {
    for (size_t i = 0; i < TM__COUNT(sets); i++) {
        if (strcmp(name, sets[i].name) != 0) continue;
        tm_dataset *set = NULL;
        TM__TRY(tm_dataset_create(&set));
        tm_status status = sets[i].build(world, sets[i].argument, set);
        if (status != TM_OK) {
            tm_dataset_free(set);
            return status;
        }
        *dataset = set;
        return TM_OK;
    }
    return tm__fail(TM_NOT_FOUND, NULL, name, "tm_world_set_name lists the sets", "the world has no such data set");
}
