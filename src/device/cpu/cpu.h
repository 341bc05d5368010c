/* cpu.h: what the files of the cpu device share: its state, scratch memory and team sizes.
 *
 * The kernels in isa/ are compiled once per instruction set (cpu.cmake); each instance fills one table below.
 * Everything that can change a result's bytes lives there, or in gemm_amx.c.
 */
#ifndef TM_CPU_H
#define TM_CPU_H

#include "device/device.h"

typedef struct tm__cpu {
    uint8_t *scratch; /* grows to the largest kernel's need, then stays */
    size_t scratch_bytes;
    struct tm__amx
        *amx;   /* prepared oneDNN primitives; NULL: the processor has no bf16 matrix unit, or fp32 was asked for */
    bool quads; /* the processor sums four products of bytes at once (AVX-512 VNNI) */
} tm__cpu;

/* A call's working memory: `shared` by all threads, and `thread_bytes` (a multiple of 64) for each. 64-byte aligned,
 * contents undefined, valid until the next tm__cpu_scratch on this device. */
typedef struct tm__scratch {
    uint8_t *shared, *threads;
    size_t thread_bytes;
} tm__scratch;
tm_status tm__cpu_scratch(tm_device *dev, size_t shared_bytes, size_t thread_bytes, tm__scratch *scratch);

/* How many threads a kernel of so much work is given: one where a parallel region costs more than it saves. `work`
 * counts simple operations; a core does about 1e9 of them in a second outside products. Results never depend on the
 * answer. */
int tm__cpu_team(const tm_device *dev, double work);

/* Elements per task of element-wise kernels, rows per partial sum of column sums: fixed, so that bytes do not depend on
 * threads. */
enum { TM__CPU_CHUNK = 8192, TM__CPU_ROWS = 64 };

extern const tm__kernels tm__cpu_kernels_avx512, tm__cpu_kernels_avx2, tm__cpu_kernels_sse;

/* gemm_amx.c: products on the bf16 matrix unit through oneDNN. */
bool tm__amx_present(void);
tm_status tm__amx_open(tm__cpu *cpu);
void tm__amx_close(tm__cpu *cpu);
tm_status tm__amx_gemm(tm_device *dev, const tm__gemm *g);

#endif
