/* places.c: where a suite's data lies, and what it hashes to.
 *
 * A path is taken as it is given: a file, or a directory that holds a file by one of the suite's names. Without a path
 * the suite's folders are looked for below the data directory. Worked examples stand in the same directory under a
 * name of their own. Test: tests/unit/test_eval_data.c.
 */
#include "eval/suite.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

/* The next of the names separated by '|'; "" past the last. */
static const char *next_name(const char *names, char *name, size_t size) {
    size_t len = strcspn(names, "|");
    snprintf(name, size, "%.*s", (int)len, names);
    return names + len + (names[len] == '|');
}

tm_status tm__place_first(const char *directory, const char *names, char **path) {
    char name[256];
    *path = NULL;
    while (*names) {
        names = next_name(names, name, sizeof name);
        char *tried = tm__path_join(directory, name);
        if (!tried) return tm__fail_memory();
        if (tm__path_exists(tried)) {
            *path = tried;
            return TM_OK;
        }
        free(tried);
    }
    return TM_OK;
}

/* The suite's file at `place`, which is there; NULL: not in this directory. */
static tm_status file_at(const tm_suite *suite, const char *place, char **path) {
    if (tm__path_is_directory(place) && suite->files) return tm__place_first(place, suite->files, path);
    *path = tm__strdup(place);
    return *path ? TM_OK : tm__fail_memory();
}

static tm_status find_below(const tm_suite *suite, const char *directory, char **path) {
    char name[256];
    if (!tm__path_is_directory(directory))
        return tm__fail(TM_NOT_FOUND, directory, "data-dir", NULL, "is no directory");
    for (const char *folders = suite->folders; *folders && !*path;) {
        folders = next_name(folders, name, sizeof name);
        char *folder = tm__path_join(directory, name);
        tm_status status = folder ? TM_OK : tm__fail_memory();
        if (status == TM_OK && tm__path_exists(folder)) status = file_at(suite, folder, path);
        free(folder);
        TM__TRY(status);
    }
    if (*path) return TM_OK;
    return tm__fail(TM_NOT_FOUND, directory, suite->name, "name the file: --data NAME=PATH",
                    "no data: looked for %s%s%s", suite->folders, suite->files ? " holding " : "",
                    suite->files ? suite->files : "");
}

static char *directory_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? tm__strndup(path, slash == path ? 1 : (size_t)(slash - path)) : tm__strdup(".");
}

static tm_status find_shots(tm_evaluation *e) {
    const tm_suite *suite = e->suite;
    if (!suite->files) return TM_OK; /* a suite of directories finds them itself */
    char *directory = directory_of(e->path);
    if (!directory) return tm__fail_memory();
    tm_status status = tm__place_first(directory, suite->shot_file, &e->shot_path);
    if (status == TM_OK && !e->shot_path)
        status = tm__fail(TM_NOT_FOUND, directory, suite->name, "or give --shots 0",
                          "no file of worked examples: looked for %s", suite->shot_file);
    free(directory);
    return status;
}

tm_status tm__place_find(tm_evaluation *e, const char *data) {
    const tm_suite *suite = e->suite;
    if (!suite->layout) return TM_OK;
    if (data) {
        if (!tm__path_exists(data)) return tm__fail(TM_NOT_FOUND, data, suite->name, NULL, "there is no such data");
        TM__TRY(file_at(suite, data, &e->path));
        if (!e->path)
            return tm__fail(TM_NOT_FOUND, data, suite->name, "name the file itself", "holds none of %s", suite->files);
    } else if (e->options.data_dir) {
        TM__TRY(find_below(suite, e->options.data_dir, &e->path));
    } else {
        return tm__fail(TM_INVALID, NULL, suite->name, "--data NAME=PATH, or --data-dir DIR", "needs data");
    }
    return e->shots > 0 ? find_shots(e) : TM_OK;
}

/* ---- directories and hashes -------------------------------------------------------------------------------------- */

tm_status tm__place_list(const char *directory, tm__place_visit visit, void *user) {
    struct dirent **names;
    int n = scandir(directory, &names, NULL, alphasort);
    if (n < 0) return tm__fail_errno(directory, "cannot be read");
    tm_status status = TM_OK;
    for (int i = 0; i < n; i++) {
        if (status == TM_OK && names[i]->d_name[0] != '.') {
            char *path = tm__path_join(directory, names[i]->d_name);
            status = path ? visit(user, names[i]->d_name, path) : tm__fail_memory();
            free(path);
        }
        free(names[i]);
    }
    free(names);
    return status;
}

static tm_status hash_path(void *user, const char *name, const char *path) {
    tm__sha256 *hash = user;
    tm__mapping file;
    tm__sha256_update(hash, name, strlen(name) + 1);
    if (tm__path_is_directory(path)) return tm__place_list(path, hash_path, hash);
    TM__TRY(tm__file_map(path, &file));
    tm__sha256_update(hash, file.data, file.len);
    tm__file_unmap(&file);
    return TM_OK;
}

tm_status tm__place_hash(const char *path, char hex[65]) {
    tm__sha256 hash;
    tm__mapping file;
    tm__sha256_init(&hash);
    if (tm__path_is_directory(path)) {
        TM__TRY(tm__place_list(path, hash_path, &hash));
    } else {
        TM__TRY(tm__file_map(path, &file));
        if (file.len) tm__sha256_update(&hash, file.data, file.len);
        tm__file_unmap(&file);
    }
    tm__sha256_hex(&hash, hex);
    return TM_OK;
}
