/* driver.c: runs a fuzz target over given files and directories: the corpus as a plain regression test.
 *
 * Each input is run as it is and cut short at several places. Finding no input at all is a failure: a test that runs
 * nothing must not pass.
 */
#include "fuzz.h"

#include <dirent.h>

static long run_bytes(const uint8_t *data, size_t size) {
    /* An exact copy on the heap: reading one byte too far is then seen. */
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    return 1;
}

static long run_path(const char *path) {
    long runs = 0;
    struct dirent **names;
    int n = tm__path_is_directory(path) ? scandir(path, &names, NULL, alphasort) : -1;
    for (int i = 0; i < n; i++) {
        char *below = names[i]->d_name[0] == '.' ? NULL : tm__path_join(path, names[i]->d_name);
        if (below) runs += run_path(below);
        free(below);
        free(names[i]);
    }
    if (n >= 0) {
        free(names);
        return runs;
    }
    char *data;
    size_t size;
    if (tm__file_read(path, 0, &data, &size) != TM_OK) {
        fprintf(stderr, "%s\n", tm_error_last()->line);
        exit(1);
    }
    runs += run_bytes((const uint8_t *)data, size);
    for (size_t part = 1; part < 16; part++) runs += run_bytes((const uint8_t *)data, size * part / 16);
    free(data);
    return runs;
}

int main(int argc, char **argv) {
    long runs = 0;
    for (int i = 1; i < argc; i++) runs += run_path(argv[i]);
    printf("%ld runs\n", runs);
    return runs > 0 ? 0 : 1;
}
