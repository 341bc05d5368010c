#include "support.h"

#include <stdlib.h>
#include <unistd.h>

const char *test_shared(const char *relative) {
    static char path[1024];
    const char *root = getenv("TEMPER_SHARED");
    snprintf(path, sizeof path, "%s/%s", root ? root : TEMPER_SOURCE_DIR "/../shared", relative);
    return access(path, R_OK) == 0 ? path : NULL;
}

const char *test_path(const char *relative) {
    static char paths[4][1024];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/tests/%s", TEMPER_SOURCE_DIR, relative);
    return path;
}

static char scratch[64][64];
static int scratch_count;

static void remove_scratch(void) {
    for (int i = 0; i < scratch_count; i++) tm__remove_tree(scratch[i]);
}

const char *test_scratch(void) {
    if (scratch_count == 64) abort();
    if (scratch_count == 0) atexit(remove_scratch);
    char *path = scratch[scratch_count++];
    snprintf(path, sizeof scratch[0], "/tmp/temper-test-XXXXXX");
    if (!mkdtemp(path)) abort();
    return path;
}

double test_relative_error(const double *a, const double *b, size_t n) {
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        diff += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}
