/* world.c: who and what there is in the built-in world: forbidden items in categories and splits, dishes, creatures,
 * places. Purposes of the random streams (the index of TM__STREAM_WORLD): 0 words, 1 recipes, 2 creatures and places,
 * 3 splits, 16 and up the rows of the sets (world_sets.c).
 */
#include "lab/world.h"

#include <stdlib.h>

/* Every reported rate rests on 500 prompts or more: 54 test items x 12 paraphrases = 648, 30 withheld items x 17 = 510,
 * 36 dishes x 14 = 504 downstream; the four skills together on 604. */
const tm__world_size tm__world_full = {
    .categories = 7,
    .per_category = 30,
    .split = {10, 8, 3, 9},
    .dishes = 72,
    .creatures = 40,
    .places = 20,
    .ingredients = 60,
    .acts = 16,
    .tools = 16,
    .foods = 12,
    .rulers = 12,
    .pretrain_forms = 16,
    .align_forms = 6,
    .probe_forms = 12,
    .withheld_forms = 17,
    .shopping_forms = 14,
    .sums = 1200,
    .reviews = 900,
    .tales = 480,
    .probes = 150,
};

const tm__world_size tm__world_quick = {
    .categories = 3,
    .per_category = 7,
    .split = {2, 2, 1, 2},
    .dishes = 8,
    .creatures = 4,
    .places = 4,
    .ingredients = 12,
    .acts = 4,
    .tools = 4,
    .foods = 4,
    .rulers = 4,
    .pretrain_forms = 6,
    .align_forms = 3,
    .probe_forms = 3,
    .withheld_forms = 3,
    .shopping_forms = 6,
    .sums = 40,
    .reviews = 40,
    .tales = 16,
    .probes = 8,
};

/* Words are handed out from one shuffled list, so no word has two meanings. */
typedef struct word_source {
    const char **words;
    size_t used;
} word_source;

static const char **take(word_source *source, int count) {
    const char **words = source->words + source->used;
    source->used += (size_t)count;
    return words;
}

static const char *pick(tm__rng *rng, const char *const *list, size_t count) {
    return list[tm__rng_below(rng, count)];
}

typedef struct recipe_words {
    const char **ingredients, **acts, **tools;
} recipe_words;

static bool same_ingredients(const tm__recipe *a, const tm__recipe *b) {
    int common = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) common += a->ingredient[i] == b->ingredient[j];
    return common == 3;
}

static bool taken(const tm__recipe *recipe, const tm__recipe *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (same_ingredients(recipe, &list[i])) return true;
    return false;
}

static void draw_ingredients(tm__rng *rng, const char **words, size_t count, tm__recipe *recipe) {
    for (int i = 0; i < 3;) {
        const char *word = pick(rng, words, count);
        bool again = false;
        for (int j = 0; j < i; j++) again = again || recipe->ingredient[j] == word;
        if (!again) recipe->ingredient[i++] = word;
    }
}

/* Fills everything but category and split. Leaking is judged by ingredients: no two recipes may have the same three. */
static tm_status draw_recipe(tm_world *world, tm__rng *rng, const recipe_words *words, const char *name,
                             const char *kind, size_t forbidden, size_t dishes, tm__recipe *recipe) {
    const tm__world_size *size = world->size;
    do draw_ingredients(rng, words->ingredients, (size_t)size->ingredients, recipe);
    while (taken(recipe, world->forbidden, forbidden) || taken(recipe, world->dishes, dishes));
    recipe->act = pick(rng, words->acts, (size_t)size->acts);
    recipe->tool = pick(rng, words->tools, (size_t)size->tools);
    char title[96];
    int len = snprintf(title, sizeof title, "%s %s", name, kind);
    recipe->title = tm__arena_strdup(&world->arena, title, (size_t)len);
    return recipe->title ? TM_OK : tm__fail_memory();
}

/* Splits of one open category: a shuffled deal. The withheld category is one split of its own. */
static void deal_splits(tm_world *world, int category, tm__recipe *items) {
    const tm__world_size *size = world->size;
    size_t order[64];
    assert((size_t)size->per_category <= TM__COUNT(order));
    for (int i = 0; i < size->per_category; i++) order[i] = (size_t)i;
    tm__rng rng = tm__rng_make(world->seed, tm__stream(TM__STREAM_WORLD, 3));
    for (int c = 0; c <= category; c++) tm__rng_shuffle(&rng, order, (size_t)size->per_category);
    int next = 0;
    for (int split = 0; split < TM_WORLD_WITHHELD; split++)
        for (int i = 0; i < size->split[split]; i++) items[order[next++]].split = split;
    assert(next == size->per_category);
    if (category == size->categories - 1)
        for (int i = 0; i < size->per_category; i++) items[i].split = TM_WORLD_WITHHELD;
}

static tm_status make_recipes(tm_world *world, word_source *source) {
    const tm__world_size *size = world->size;
    recipe_words words = {take(source, size->ingredients), take(source, size->acts), take(source, size->tools)};
    world->categories = take(source, size->categories);
    const char **forbidden_names = take(source, (int)world->forbidden_count), **dish_names = take(source, size->dishes);
    tm__rng rng = tm__rng_make(world->seed, tm__stream(TM__STREAM_WORLD, 1));
    for (size_t i = 0; i < world->forbidden_count; i++) {
        tm__recipe *item = &world->forbidden[i];
        item->category = (int)i / size->per_category;
        TM__TRY(draw_recipe(world, &rng, &words, forbidden_names[i], world->categories[item->category], i, 0, item));
    }
    for (int c = 0; c < size->categories; c++) deal_splits(world, c, world->forbidden + c * size->per_category);
    size_t kinds = tm__world_list_length(tm__world_dish_kinds);
    for (int i = 0; i < size->dishes; i++) {
        tm__recipe *dish = &world->dishes[i];
        dish->category = dish->split = -1;
        TM__TRY(draw_recipe(world, &rng, &words, dish_names[i], tm__world_dish_kinds[(size_t)i % kinds],
                            world->forbidden_count, (size_t)i, dish));
    }
    return TM_OK;
}

static void make_creatures_and_places(tm_world *world, word_source *source) {
    const tm__world_size *size = world->size;
    const char **foods = take(source, size->foods), **rulers = take(source, size->rulers);
    const char **creatures = take(source, size->creatures), **places = take(source, size->places);
    tm__rng rng = tm__rng_make(world->seed, tm__stream(TM__STREAM_WORLD, 2));
    for (int i = 0; i < size->creatures; i++) {
        tm__creature *creature = &world->creatures[i];
        creature->name = creatures[i];
        creature->home = pick(&rng, tm__world_homes, tm__world_list_length(tm__world_homes));
        creature->food = pick(&rng, foods, (size_t)size->foods);
        creature->colour = pick(&rng, tm__world_colours, tm__world_list_length(tm__world_colours));
    }
    for (int i = 0; i < size->places; i++) {
        tm__place *place = &world->places[i];
        place->name = places[i];
        place->sight = pick(&rng, tm__world_sights, tm__world_list_length(tm__world_sights));
        place->ruler = pick(&rng, rulers, (size_t)size->rulers);
    }
}

static tm_status fill(tm_world *world) {
    const tm__world_size *size = world->size;
    world->forbidden_count = (size_t)(size->categories * size->per_category);
    size_t words = (size_t)(size->ingredients + size->acts + size->tools + size->categories + size->dishes +
                            size->foods + size->rulers + size->creatures + size->places) +
                   world->forbidden_count;
    word_source source = {0};
    TM__TRY(tm__world_invent(&world->arena, world->seed, words, &source.words));
    world->forbidden = tm__arena_alloc(&world->arena, world->forbidden_count, sizeof *world->forbidden);
    world->dishes = tm__arena_alloc(&world->arena, (size_t)size->dishes, sizeof *world->dishes);
    world->creatures = tm__arena_alloc(&world->arena, (size_t)size->creatures, sizeof *world->creatures);
    world->places = tm__arena_alloc(&world->arena, (size_t)size->places, sizeof *world->places);
    if (!world->forbidden || !world->dishes || !world->creatures || !world->places) return tm__fail_memory();
    TM__TRY(make_recipes(world, &source));
    make_creatures_and_places(world, &source);
    assert(source.used == words);
    return TM_OK;
}

tm_status tm__world_create_sized(uint64_t seed, const tm__world_size *size, tm_world **world) {
    tm_world *made = tm__zalloc(1, sizeof *made);
    if (!made) return tm__fail_memory();
    made->seed = seed;
    made->size = size;
    tm_status status = fill(made);
    if (status != TM_OK) {
        tm_world_free(made);
        return status;
    }
    *world = made;
    return TM_OK;
}

tm_status tm_world_create(uint64_t seed, tm_world **world) {
    return tm__world_create_sized(seed, &tm__world_full, world);
}

void tm_world_free(tm_world *world) {
    if (!world) return;
    tm__arena_release(&world->arena);
    free(world);
}

const char *tm_world_skill_name(const tm_world *world, size_t index) {
    static const char *const names[TM__SKILLS] = {"dishes", "facts", "arithmetic", "sentiment"};
    (void)world;
    return index < TM__SKILLS ? names[index] : NULL;
}
