/* memory.c: what a rehearsed run would hold at its peak: the device's count, the mapping, the program itself. */
#include "model/weights.h"

/* Mapped weights stay resident beside the masters that training makes of them, until the system wants the pages. */
static tm_status add_mapped(void *user, tm__param *param, bool is_adapter) {
    tm_memory *memory = ((void **)user)[0];
    const tm__param *own = tm__param_base(((void **)user)[1], param);
    if (!is_adapter) memory->mapped += tm__tensor_count(&own->value) * (int64_t)tm__dtype_size(own->stored);
    return TM_OK;
}

static int64_t resident_bytes(void) {
    char line[256];
    long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmRSS: %lld kB", &kib) == 1) break;
    fclose(file);
    return (int64_t)kib * 1024;
}

tm_status tm_model_memory(const tm_model *model, tm_memory *memory) {
    tm_memory made = {0};
    if (!model->dev->rehearses)
        return tm__fail(TM_INVALID, NULL, "device", "open it with tm_device_open_rehearsal",
                        "only a rehearsal counts memory");
    tm__rehearsal_memory(model->dev, &made);
    if (model->files) TM__TRY(tm__model_params((tm_model *)model, add_mapped, (void *[]){&made, (void *)model}));
    made.program = resident_bytes();
    made.total = made.mapped + made.weights + made.gradients + made.moments + made.vectors + made.activations +
                 made.logits + made.cache + made.kernels + made.program;
    *memory = made;
    return TM_OK;
}
