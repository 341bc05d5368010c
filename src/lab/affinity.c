/* affinity.c: layer-wise safety affinity (Panacea, arXiv 2501.18100): norms of the perturbation by block and by module.
 *
 * Deviation: shares of the whole norm instead of norms, so that models of any size can be laid side by side.
 * Pinned by tests/unit/test_affinity.c.
 */
#include "lab/affinity.h"

#include <jansson.h>
#include <stdlib.h>

enum { BLOCKS = 512, MODULES = 32, NAME = 48 };

typedef struct sums {
    double all, outside, block[BLOCKS]; /* of squares */
    size_t blocks, modules;
    double module[MODULES];
    char names[MODULES][NAME];
} sums;

/* "model.layers.3.self_attn.q_proj.weight": 3 and "q_proj"; -1: in no block. Adapters' "q_proj.lora_A.weight" count for
 * their module. */
static long place_of(const char *name, char module[NAME]) {
    const char *at = strstr(name, "layers.");
    char *end, parts[256];
    module[0] = 0;
    if (!at) return -1;
    long block = strtol(at + 7, &end, 10);
    if (end == at + 7 || *end != '.' || block < 0 || block >= BLOCKS) return -1;
    snprintf(parts, sizeof parts, "%s", end + 1);
    char *stop = strstr(parts, ".lora_");
    if (!stop) stop = strrchr(parts, '.');
    if (stop) *stop = 0;
    const char *last = strrchr(parts, '.');
    snprintf(module, NAME, "%.40s", last ? last + 1 : parts);
    return block;
}

static void count(sums *s, const char *name, double norm) {
    char module[NAME];
    long block = place_of(name, module);
    size_t i = 0;
    s->all += norm * norm;
    if (block < 0) {
        s->outside += norm * norm;
        return;
    }
    s->block[block] += norm * norm;
    s->blocks = TM__MAX(s->blocks, (size_t)block + 1);
    while (i < s->modules && strcmp(s->names[i], module) != 0) i++;
    if (i == MODULES) return;
    if (i == s->modules) snprintf(s->names[s->modules++], NAME, "%s", module);
    s->module[i] += norm * norm;
}

static tm_status tell(const sums *s, tm__affinity_add *add, void *user) {
    char name[NAME + 16];
    for (size_t i = 0; i < s->blocks; i++) {
        snprintf(name, sizeof name, "epsilon_block_%zu", i);
        TM__TRY(add(user, name, sqrt(s->block[i] / s->all)));
    }
    for (size_t i = 0; i < s->modules; i++) {
        snprintf(name, sizeof name, "epsilon_%s", s->names[i]);
        TM__TRY(add(user, name, sqrt(s->module[i] / s->all)));
    }
    return add(user, "epsilon_outside", sqrt(s->outside / s->all));
}

tm_status tm__affinity_read(const char *path, tm__affinity_add *add, void *user) {
    json_t *json = NULL;
    TM__TRY(tm__json_load(path, &json));
    const json_t *list = json_object_get(json, "parameters");
    sums *s = tm__zalloc(1, sizeof *s);
    tm_status status = s ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < json_array_size(list); i++) {
        const json_t *row = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(row, "name"));
        double norm = json_number_value(json_object_get(row, "epsilon_norm"));
        if (name && isfinite(norm)) count(s, name, norm);
    }
    if (status == TM_OK && s->all > 0) status = tell(s, add, user);
    free(s);
    json_decref(json);
    return status;
}
