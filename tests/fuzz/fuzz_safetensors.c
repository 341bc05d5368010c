/* Any bytes as a safetensors file: opened or refused with file and reason, and every tensor that is handed out lies
 * within the file, so that reading all of it is safe. */
#include "fuzz.h"
#include "model/safetensors.h"

#include <sys/mman.h>
#include <unistd.h>

/* A file in memory, rewritten for each input. */
static const char *file_of(const uint8_t *data, size_t size) {
    static char path[64];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    FUZZ_CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tm__safetensors *file = NULL;
    size_t bytes = 0;
    tm_error_clear();
    tm_status status = tm__safetensors_open(file_of(data, size), &file);
    FUZZ_CHECK((status == TM_OK) == (file != NULL));
    if (!file) {
        FUZZ_CHECK(status == TM_FORMAT && tm_error_last()->file[0] && tm_error_last()->field[0]);
        return 0;
    }
    for (size_t i = 0; i < tm__safetensors_count(file); i++) {
        tm_tensor t;
        FUZZ_CHECK(tm__safetensors_index(file, tm__safetensors_name(file, i)) == (int64_t)i);
        status = tm__safetensors_at(file, i, &t);
        FUZZ_CHECK(status == TM_OK || status == TM_UNSUPPORTED);
        if (status != TM_OK) continue;
        FUZZ_CHECK((uintptr_t)t.data % tm__dtype_size(t.dtype) == 0);
        bytes += tm__tensor_bytes(&t);
        status = tm__tensor_check_finite(&t, "input", "tensor");
        FUZZ_CHECK(status == TM_OK || status == TM_NUMERIC);
    }
    FUZZ_CHECK(bytes <= size);
    tm__safetensors_close(file);
    return 0;
}
