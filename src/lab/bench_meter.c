/* bench_meter.c: what Linux says about time, other processes and memory: /proc/stat, /proc/self/status.
 *
 * Time stolen from a virtual machine counts as others' work. (tests/unit/test_bench.c)
 */
#include "lab/bench.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

static double own_seconds(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return NAN;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
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
