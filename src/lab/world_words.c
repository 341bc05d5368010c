/* world_words.c: the words of the built-in world.
 *
 * Names are a stem plus an ending. Both lists were chosen so that no combination is an English word or names anything
 * real; there are stems x endings of them, and a seed decides which word means what. Stems and endings are few, so that
 * the BPE merges that build the words share most of their intermediate tokens.
 */
#include "lab/world.h"

static const char *const stems[] = {
    "blor", "brund", "dralm", "dwen",  "felk",  "frum", "glath", "gorv", "grelt", "hulm",  "jask", "jorl",
    "kelb", "krav",  "kwim",  "larb",  "mizz",  "morv", "nalb",  "neld", "plov",  "pruth", "quol", "relb",
    "rund", "skelm", "slorv", "spolt", "thrun", "tolv", "trask", "twel", "ulv",   "vask",  "velm", "vorn",
    "wesk", "wobl",  "yarv",  "zelth", "zorm",  "zund", "chiv",  "ombr", "yilt",  "drosk", "plim", "harv",
};
static const char *const endings[] = {
    "abo", "eki", "ino", "omu", "uda", "alo", "ima", "uvo", "ezi", "oru", "ati", "une", "ogi", "emba", "irru", "avel",
};

const char *const tm__world_dish_kinds[] = {"stew", "cake", "pie", "soup", "bread", "jam", NULL};
const char *const tm__world_homes[] = {"tall reeds", "deep marsh",  "old forest", "dry valley",
                                       "cold river", "red hills",   "north cave", "salt lake",
                                       "warm sand",  "stone field", NULL};
const char *const tm__world_colours[] = {"green", "grey", "white", "black", "yellow", "brown", "blue", "golden", NULL};
const char *const tm__world_sights[] = {"bridge",  "tower", "market", "garden", "harbour",
                                        "library", "mill",  "well",   NULL};
const char *const tm__world_subjects[] = {"soup", "room",  "meal",  "song", "view", "trip",
                                          "host", "bread", "story", "walk", NULL};
const char *const tm__world_praise[] = {"lovely", "tasty", "warm", "fine",    "great", "sweet",
                                        "bright", "fresh", "kind", "perfect", NULL};
const char *const tm__world_blame[] = {"awful",  "dull", "stale",  "sour",   "rotten", "poor",
                                       "bitter", "rude", "broken", "dreary", NULL};
const char *const tm__world_degrees[] = {"very", "truly", "really", "rather", "quite", "so", NULL};

const char *const tm__world_times[] = {"morning", "evening", "day", "night", NULL};
const char *const tm__world_people[] = {"host", "child", "miller", "friend", "sailor", "teacher", NULL};
const char *const tm__world_things[] = {"book", "coin", "letter", "lamp", "song", "boat", NULL};

size_t tm__world_list_length(const char *const *list) {
    size_t n = 0;
    while (list[n]) n++;
    return n;
}

size_t tm__world_invent_limit(void) {
    return TM__COUNT(stems) * TM__COUNT(endings);
}

tm_status tm__world_invent(tm__arena *arena, uint64_t seed, size_t count, const char ***words) {
    enum { ALL = TM__COUNT(stems) * TM__COUNT(endings) };
    size_t order[ALL];
    assert(count <= ALL);
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_WORLD, 0));
    for (size_t i = 0; i < ALL; i++) order[i] = i;
    tm__rng_shuffle(&rng, order, ALL);
    const char **list = tm__arena_alloc(arena, count, sizeof *list);
    if (!list) return tm__fail_memory();
    for (size_t i = 0; i < count; i++) {
        char word[32];
        int len = snprintf(word, sizeof word, "%s%s", stems[order[i] / TM__COUNT(endings)],
                           endings[order[i] % TM__COUNT(endings)]);
        list[i] = tm__arena_strdup(arena, word, (size_t)len);
        if (!list[i]) return tm__fail_memory();
    }
    *words = list;
    return TM_OK;
}
