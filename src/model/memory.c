/* memory.c: what a run holds in memory beside what the device counts: weights mapped from files, the program itself.
 *
 * A weight that got a master copy gave its pages of the mapping back (weights.c). (tests/unit/test_rehearsal.c,
 * tests/unit/test_memory_limit.c)
 */
#include "model/weights.h"

#include <stdlib.h>

typedef struct mapping {
    const tm_model *model;
    int64_t bytes;
} mapping;

static tm_status add_mapped(void *user, tm__param *param, bool is_adapter) {
    mapping *m = user;
    const tm__param *own = tm__param_base(m->model, param);
    if (!is_adapter && !own->owned) m->bytes += tm__tensor_count(&own->value) * (int64_t)tm__dtype_size(own->stored);
    return TM_OK;
}

static tm_status mapped_bytes(const tm_model *model, int64_t *bytes) {
    mapping m = {.model = model};
    if (model->files) TM__TRY(tm__model_params((tm_model *)model, add_mapped, &m));
    *bytes = m.bytes;
    return TM_OK;
}

/* A line of the kernel's account of this process: VmRSS, RssAnon, RssFile. */
static int64_t resident_bytes(const char *what) {
    char line[256];
    int64_t bytes = 0;
    size_t len = strlen(what);
    FILE *file = fopen("/proc/self/status", "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, what, len) == 0 && line[len] == ':')
            bytes = 1024 * (int64_t)strtoll(line + len + 1, NULL, 10);
    fclose(file);
    return bytes;
}

/* Where work has begun, buffers and weights are resident already and taken off again, those weights too that nobody has
 * read yet. So it is no less than what a small run takes. */
static int64_t program_bytes(const tm_model *model, int64_t mapped) {
    static const int64_t least = 32 << 20;
    int64_t buffers = (int64_t)tm__pool_resident(model->dev);
    if (model->dev->rehearses) return resident_bytes("VmRSS") - buffers;
    int64_t own = resident_bytes("RssAnon") - buffers;
    return TM__MAX(own + TM__MAX(resident_bytes("RssFile") - mapped, (int64_t)0), least);
}

tm_status tm__model_memory_beside(const tm_model *model, int64_t *bytes) {
    int64_t mapped;
    TM__TRY(mapped_bytes(model, &mapped));
    *bytes = mapped + program_bytes(model, mapped);
    return TM_OK;
}

tm_status tm_model_memory(const tm_model *model, tm_memory *memory) {
    tm_memory made = {0};
    if (!model->dev->rehearses)
        return tm__fail(TM_INVALID, NULL, "device", "open it with tm_device_open_rehearsal",
                        "only a rehearsal counts memory");
    tm__rehearsal_memory(model->dev, &made);
    TM__TRY(mapped_bytes(model, &made.mapped));
    made.program = program_bytes(model, made.mapped);
    made.total = made.mapped + made.weights + made.gradients + made.moments + made.vectors + made.activations +
                 made.logits + made.cache + made.overlap + made.kernels + made.program;
    *memory = made;
    return TM_OK;
}
