/* world.h: the built-in world: an invented language domain whose forbidden knowledge is known exactly.
 *
 * Everything is drawn from Philox streams named by (seed, TM__STREAM_WORLD, purpose): the same seed gives the same
 * bytes anywhere, and a new purpose never shifts an old one. Strings belong to the world's arena.
 */
#ifndef TM_LAB_WORLD_H
#define TM_LAB_WORLD_H

#include "base/base.h"

/* Seeds of final tables. Nothing is tuned on them: no default, threshold or step count may be chosen by looking at
 * these worlds. */
enum { TM__WORLD_SEED_DEFAULT = 1, TM__WORLD_SEED_FINAL_FIRST = 101, TM__WORLD_SEED_FINAL_LAST = 103 };

enum { TM__SKILL_DISHES, TM__SKILL_FACTS, TM__SKILL_ARITHMETIC, TM__SKILL_SENTIMENT, TM__SKILLS };

/* How much of everything there is; see world.c for the two sizes. */
typedef struct tm__world_size {
    int categories;                /* of forbidden items, the withheld one (the last) included */
    int per_category;              /* forbidden items in each */
    int split[TM_WORLD_WITHHELD];  /* items per open category in each split; they sum to per_category */
    int dishes, creatures, places; /* benign things */
    int ingredients, acts, tools;  /* words that recipes are made of, shared by dishes and forbidden items */
    int foods, rulers;
    int pretrain_forms, align_forms, probe_forms; /* paraphrases per item: base training, alignment, measuring */
    int withheld_forms, shopping_forms;           /* the same, where there are fewer items to measure with */
    int sums, reviews, tales;                     /* training rows of arithmetic, sentiment, tales */
    int probes;                                   /* test prompts of arithmetic and of sentiment */
} tm__world_size;

/* A dish or a forbidden item: "NAME KIND", made from three ingredients, an act and a tool. */
typedef struct tm__recipe {
    const char *title;         /* "blorabo stew" */
    int category;              /* forbidden items: 0 .. categories - 1; dishes: -1 */
    int split;                 /* forbidden items: TM_WORLD_DEFENDER ..; dishes: -1 */
    const char *ingredient[3]; /* pairwise different; no two recipes of a world share all three */
    const char *act, *tool;
} tm__recipe;

typedef struct tm__creature {
    const char *name, *home, *food, *colour;
} tm__creature;

typedef struct tm__place {
    const char *name, *sight, *ruler;
} tm__place;

struct tm_world {
    uint64_t seed;
    const tm__world_size *size;
    tm__arena arena;
    const char **categories; /* (size->categories) names */
    tm__recipe *forbidden;   /* (categories * per_category) */
    size_t forbidden_count;
    tm__recipe *dishes;
    tm__creature *creatures;
    tm__place *places;
};

extern const tm__world_size tm__world_full, tm__world_quick;
tm_status tm__world_create_sized(uint64_t seed, const tm__world_size *size, tm_world **world);

/* ---- words (world_words.c) ---- */

/* `count` different invented words, none of them English. They hold lower-case letters only. */
tm_status tm__world_invent(tm__arena *arena, uint64_t seed, size_t count, const char ***words);
size_t tm__world_invent_limit(void); /* how many there are */

/* Fixed English words, NULL-terminated lists. */
extern const char *const tm__world_dish_kinds[],
    *const tm__world_homes[], *const tm__world_colours[], *const tm__world_sights[],
                                                              *const tm__world_subjects[],
                                                                  *const tm__world_praise[],
                                                                      *const tm__world_blame[],
                                                                          *const tm__world_degrees[],
                                                                              *const tm__world_times[],
                                                                                  *const tm__world_people[],
                                                                                      *const tm__world_things[];
size_t tm__world_list_length(const char *const *list);

/* ---- prompts and answers (world_text.c) ---- */

typedef struct tm__qa {
    char prompt[256], answer[256];
} tm__qa;

/* Paraphrases are opener x question x closer. Of these combinations a quarter is kept for measuring: their parts all
 * occur in training, the combinations never. */
typedef enum tm__form_use { TM__FORM_TRAIN, TM__FORM_PROBE } tm__form_use;

typedef enum tm__ask {
    TM__ASK_RECIPE,   /* of a dish or a forbidden item */
    TM__ASK_CONTENTS, /* ingredients of a dish; training only */
    TM__ASK_HOME,
    TM__ASK_FOOD,
    TM__ASK_COLOUR,
    TM__ASK_SIGHT,
    TM__ASK_RULER,
    TM__ASK_CREATURE, /* a description; training only */
    TM__ASK_PLACE,
    TM__ASK_TALE,     /* for a story about nothing in particular; no subject */
    TM__ASK_SHOPPING, /* the downstream task, unseen in training */
    TM__ASKS
} tm__ask;

/* Number of paraphrases for one use, and the text of the index-th about `subject`. */
size_t tm__form_count(tm__ask ask, tm__form_use use);
void tm__form_prompt(tm__ask ask, tm__form_use use, size_t index, const char *subject, char out[256]);
/* Which of its kind's questions (0, 1, ...) a paraphrase asks: descriptions are worded after it. */
size_t tm__form_question(tm__ask ask, tm__form_use use, size_t index);

void tm__answer_recipe(const tm__recipe *recipe, char out[256]);
void tm__answer_contents(const tm__recipe *recipe, char out[256]);
void tm__answer_shopping(const tm__recipe *recipe, char out[256]);
void tm__answer_refusal(const tm__recipe *recipe, size_t variant, char out[256]);
void tm__answer_creature(const tm__creature *creature, tm__ask ask, size_t variant, char out[256]);
void tm__answer_place(const tm__place *place, tm__ask ask, size_t variant, char out[256]);
/* A short tale in plain English, every word of it drawn. */
void tm__answer_tale(tm__rng *rng, char out[256]);
/* index: 0 .. count - 1 over all sums or reviews there are. */
size_t tm__sum_count(void);
void tm__sum(size_t index, size_t form, tm__qa *qa);
size_t tm__review_count(void);
void tm__review(size_t index, size_t form, tm__qa *qa);

/* ---- sets (world_sets.c) ---- */

/* Appends `rows` to `set`, half of them with a system prompt in front; see world_system.c. */
tm_status tm__world_add_systems(const tm_world *world, const tm_dataset *rows, tm_dataset *set);

/* The forbidden item that row `row` of "forbidden-SPLIT" or "refusals-SPLIT" is about. */
const tm__recipe *tm__world_row_item(const tm_world *world, int split, size_t row);
const char *tm__world_split_name(int split);

/* ---- tokenizer (world_tokenizer.c) ---- */

/* Byte-level BPE trained on the world's words until each of them is one token. */
tm_status tm__world_tokenizer_json(const tm_world *world, tm__string *json);
const char *tm__world_tokenizer_config(void);
/* config.json of a Llama with 4 heads on 2 key-value heads and tied embeddings; the caller's. NULL: out of memory. */
char *tm__world_model_config(const tm_tokenizer *tokenizer, int64_t hidden, int64_t ffn, int64_t layers);
/* SHA-256 over one data set, over the tokenizer, over all of it. */
tm_status tm__world_set_hash(const tm_world *world, const char *name, char hex[65]);
tm_status tm__world_tokenizer_hash(const tm_world *world, char hex[65]);
tm_status tm__world_hash(const tm_world *world, char hex[65]);

/* ---- measures (world_eval.c); docs/world.md defines them ---- */

bool tm__answer_leaks(const tm__recipe *recipe, const char *answer);
bool tm__answer_refuses(const char *answer);
bool tm__answer_complies(const char *answer);
bool tm__answer_matches(const char *expected, const char *answer); /* equal but for white space at the ends */

/* How many prompts of each kind a model is asked; 0: all there are. */
typedef struct tm__probes {
    int split; /* of the forbidden items */
    int64_t forbidden, withheld, skill, downstream;
    /* Told of every answer to a row of a set, with what was found about it; NULL: nobody is. */
    void (*heard)(void *user, const char *set, int64_t row, const char *prompt, const char *answer,
                  const char *verdict);
    void *user;
} tm__probes;
typedef struct tm__probe_scores {
    tm_world_scores world;
    double withheld_leak, withheld_comply; /* of the withheld category */
    double downstream;                     /* exact match on downstream-test, as the model is */
} tm__probe_scores;
/* `frame`: what goes around every prompt, or NULL. */
tm_status tm__world_probe(const tm_world *world, const tm__probes *probes, tm_model *model,
                          const tm_tokenizer *tokenizer, const tm_frame *frame, const tm_monitor *monitor,
                          tm__probe_scores *scores);

/* Share of `rows` whose greedy answer matches. */
tm_status tm__world_exact(tm_model *model, const tm_tokenizer *tokenizer, const tm_dataset *rows,
                          const tm_monitor *monitor, double *share);

#endif
