/* bench_meter.c: what Linux says about time, other processes and memory: /proc/stat, /proc/self/status.
 *
 * Time stolen from a virtual machine counts as others' work. Memory is read in four runs of lines at a time, each line
 * asked for 64 KiB ahead, which was measured up to twice as fast as a single run; a sum keeps the compiler from leaving
 * it out. (tests/unit/test_bench.c)
 */
#include "lab/bench.h"

#include <malloc.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static double seconds_of(int who) {
    struct rusage usage;
    if (getrusage(who, &usage) != 0) return NAN;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static double own_seconds(void) {
    return seconds_of(RUSAGE_SELF) + seconds_of(RUSAGE_CHILDREN);
}

/* user nice system (idle iowait) irq softirq steal, in ticks */
static double busy_seconds(void) {
    unsigned long long user, nice, system, idle, wait, irq, soft, steal;
    FILE *file = fopen("/proc/stat", "r");
    long ticks = sysconf(_SC_CLK_TCK);
    if (!file) return NAN;
    int read = fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq,
                      &soft, &steal);
    fclose(file);
    return read == 8 && ticks > 0 ? (double)(user + nice + system + irq + soft + steal) / (double)ticks : NAN;
}

tm__meter tm__meter_read(void) {
    return (tm__meter){.seconds = tm__now(), .busy = busy_seconds(), .own = own_seconds()};
}

double tm__meter_foreign(const tm__meter *from, const tm__meter *to) {
    double wall = to->seconds - from->seconds, others = (to->busy - from->busy) - (to->own - from->own);
    return wall > 0 && isfinite(others) ? fmax(others, 0) / wall : NAN;
}

bool tm__peak_reset(void) {
#ifdef __GLIBC__
    malloc_trim(0); /* or what earlier runs freed would count */
#endif
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return false;
    bool ok = fputs("5\n", file) >= 0;
    return fclose(file) == 0 && ok;
}

int64_t tm__peak_bytes(void) {
    char line[256];
    long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lld kB", &kib) == 1) break;
    fclose(file);
    return (int64_t)kib * 1024;
}

uint64_t tm__read_memory(const uint64_t *memory, size_t bytes, int threads) {
    enum { LINE = 8, RUNS = 4, LINES = 256, BLOCK = RUNS * LINES * LINE };
    int64_t blocks = (int64_t)(bytes / sizeof *memory / BLOCK);
    uint64_t sum = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : sum)
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < LINES; i++)
            for (int64_t run = 0; run < RUNS; run++) {
                const uint64_t *line = memory + b * BLOCK + (run * LINES + i) * LINE;
                if (b + 1 < blocks) __builtin_prefetch(line + BLOCK);
                for (int64_t k = 0; k < LINE; k++) sum += line[k];
            }
    for (size_t i = (size_t)blocks * BLOCK; i < bytes / sizeof *memory; i++) sum += memory[i];
    return sum;
}

void tm__bench_progress(const tm_monitor *monitor, const char *phase, const char *unit, int64_t done, int64_t total,
                        double began) {
    const tm_progress progress = {.phase = phase,
                                  .done = done,
                                  .total = total,
                                  .unit = unit,
                                  .loss = NAN,
                                  .lr = NAN,
                                  .seconds = tm__now() - began};
    if (monitor && monitor->progress && done) monitor->progress(monitor->user, &progress);
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double tm__bench_median(const double *values, size_t n, double *room) {
    if (n == 0) return NAN;
    memcpy(room, values, n * sizeof *room);
    qsort(room, n, sizeof *room, rising);
    return n % 2 ? room[n / 2] : (room[n / 2 - 1] + room[n / 2]) / 2;
}

void tm__bench_summarise(tm_bench_times *times, double *room) {
    times->median = tm__bench_median(times->seconds, times->count, room);
    times->least = times->count ? room[0] : NAN;
    times->most = times->count ? room[times->count - 1] : NAN;
}
