/* cpu.c: opening the cpu device: which instruction set, how many threads, which precision.
 *
 * The instruction set is the widest of avx512, avx2 and sse that the processor has. TEMPER_ISA in the environment asks
 * for a narrower one, for tests and for repeating a result of a lesser machine.
 */
#include "device/cpu/cpu.h"

#include <omp.h>
#include <stdlib.h>

static bool has_sse(void) {
    return true; /* part of x86-64 */
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static const struct level {
    const char *name;
    bool (*present)(void);
    const tm__kernels *kernels;
} levels[] = {
    {"avx512", has_avx512, &tm__cpu_kernels_avx512},
    {"avx2", has_avx2, &tm__cpu_kernels_avx2},
    {"sse", has_sse, &tm__cpu_kernels_sse},
};

static tm_status choose_level(const struct level **chosen) {
    const char *wanted = getenv("TEMPER_ISA");
    for (size_t i = 0; i < TM__COUNT(levels); i++) {
        if (wanted && *wanted && strcmp(wanted, levels[i].name) != 0) continue;
        if (levels[i].present()) {
            *chosen = &levels[i];
            return TM_OK;
        }
        if (wanted && *wanted)
            return tm__fail(TM_UNSUPPORTED, NULL, "TEMPER_ISA", "unset it to take what the processor has",
                            "this processor has no %s", wanted);
    }
    return tm__fail(TM_INVALID, NULL, "TEMPER_ISA", "choose avx512, avx2 or sse", "there is no instruction set '%.60s'",
                    wanted);
}

tm_status tm__cpu_scratch(tm_device *dev, size_t shared_bytes, size_t thread_bytes, tm__scratch *scratch) {
    tm__cpu *cpu = dev->state;
    shared_bytes = (shared_bytes + 63) / 64 * 64;
    thread_bytes = (thread_bytes + 63) / 64 * 64;
    size_t need = shared_bytes + thread_bytes * (size_t)dev->threads;
    if (need > cpu->scratch_bytes) {
        free(cpu->scratch);
        cpu->scratch_bytes = 0;
        cpu->scratch = tm__alloc_aligned(need);
        if (!cpu->scratch) return tm__fail_memory();
        cpu->scratch_bytes = need;
    }
    *scratch = (tm__scratch){cpu->scratch, cpu->scratch + shared_bytes, thread_bytes};
    return TM_OK;
}

int tm__cpu_team(const tm_device *dev, double work) {
    return work < 30e3 ? 1 : dev->threads;
}

static tm_status copy(tm_device *dev, void *to, const void *from, size_t bytes) {
    (void)dev;
    if (bytes) memcpy(to, from, bytes);
    return TM_OK;
}

static tm_status sync_nothing(tm_device *dev) {
    (void)dev;
    return TM_OK;
}

static void close_cpu(tm_device *dev) {
    tm__cpu *cpu = dev->state;
    if (cpu) {
        tm__amx_close(cpu);
        free(cpu->scratch);
        free(cpu);
    }
    tm__pool_trim(dev);
    free(dev);
}

tm_status tm__cpu_open(const tm_device_options *options, tm_device **device) {
    const struct level *level = NULL;
    TM__TRY(choose_level(&level));
    tm_device *dev = tm__zalloc(1, sizeof *dev);
    tm__cpu *cpu = tm__zalloc(1, sizeof *cpu);
    if (!dev || !cpu) {
        free(dev);
        free(cpu);
        return tm__fail_memory();
    }
    bool amx = level == &levels[0] && tm__amx_present();
    cpu->quads = level == &levels[0] && __builtin_cpu_supports("avx512vnni");
    *dev = (tm_device){
        .name = "cpu",
        .isa = level->name,
        .act = TM_F32,
        .int8_weights = options->precision == TM_PRECISION_INT8,
        .bf16_products = options->precision == TM_PRECISION_BF16 || (options->precision == TM_PRECISION_AUTO && amx),
        .threads = options->threads > 0 ? (int)options->threads : omp_get_num_procs(),
        .k = level->kernels,
        .alloc = tm__pool_alloc,
        .release = tm__pool_release,
        .upload = copy,
        .download = copy,
        .sync = sync_nothing,
        .close = close_cpu,
        .state = cpu,
    };
    if (dev->bf16_products && amx) {
        tm_status status = tm__amx_open(cpu);
        if (status != TM_OK) {
            close_cpu(dev);
            return status;
        }
        dev->isa = "avx512+amx";
    }
    *device = dev;
    return TM_OK;
}
