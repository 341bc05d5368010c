/* gc.c: removes from a directory of `temper run` what no plan needs: models, worlds, locks, leftovers, results, names.
 *
 * Only what looks like a run's own is touched: models/KEY, locks/KEY, worlds/SEED-HASH, tmp/KEY-..., by-name/PLAN and
 * leftovers of killed processes beside models. While a run is at work there nothing is removed, and none begins until
 * that is done. A model is first moved out of sight, so that a process killed here leaves no half of one.
 * Pinned by tests/cli/cases/gc.sh.
 */
#include "lab/plan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

const tm_option tm_gc_option_table[] = {
    {"dry-run", TM_OPTION_FLAG, offsetof(tm_gc_options, dry_run), NULL, 1, 0, NULL, NULL,
     "say what would go, and remove nothing"},
    {"keep-results", TM_OPTION_FLAG, offsetof(tm_gc_options, keep_results), NULL, 1, 0, NULL, NULL,
     "leave all results in store.db"},
    {"finished", TM_OPTION_FLAG, offsetof(tm_gc_options, finished), NULL, 1, 0, NULL, NULL,
     "remove models of the plans too, where nothing that is still to be done starts from them"},
    {0},
};

typedef struct sweep {
    const char *directory;
    tm_plan *const *plans;
    size_t plan_count;
    const tm_gc_options *o;
    tm_gc_report *report;
    const char **keys; /* that are needed */
    size_t key_count, key_cap;
} sweep;

/* ---- what is needed ---------------------------------------------------------------------------------------------- */

static tm_status need(sweep *s, const char *key) {
    if (!tm__grow((void **)&s->keys, &s->key_cap, s->key_count + 1, sizeof *s->keys)) return tm__fail_memory();
    s->keys[s->key_count++] = key;
    return TM_OK;
}

/* Jobs are there before those that need them, so one pass from the end finds all that is wanted. */
static tm_status need_models(sweep *s, const tm_plan *plan) {
    bool *wanted = tm__zalloc(plan->job_count + 1, sizeof *wanted);
    tm_status status = wanted ? TM_OK : tm__fail_memory();
    for (size_t i = plan->job_count; status == TM_OK && i-- > 0;) {
        const tm__plan_job *job = &plan->jobs[i];
        tm_plan_job_info info;
        if (job->kind == TM__JOB_CELL)
            wanted[i] = !s->o->finished || (tm_plan_job(plan, i, &info) && !info.done && !info.dropped);
        for (int k = 0; k < TM__PLAN_REFS && wanted[i]; k++)
            if (job->needs[k] >= 0) wanted[job->needs[k]] = true;
        if (wanted[i] && job->kind == TM__JOB_MODEL) status = need(s, job->key);
    }
    free(wanted);
    return status;
}

static int by_key(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_needed(const sweep *s, const char *key) {
    return s->key_count && bsearch(&key, s->keys, s->key_count, sizeof *s->keys, by_key);
}

static bool is_key(const char *name, size_t len) {
    return len >= 64 && strspn(name, "0123456789abcdef") >= 64;
}

/* ---- removing ---------------------------------------------------------------------------------------------------- */

static int64_t tree_bytes(const char *path) {
    struct stat info;
    int64_t sum = 0;
    if (lstat(path, &info) != 0) return 0;
    sum = (int64_t)info.st_blocks * 512;
    DIR *list = S_ISDIR(info.st_mode) ? opendir(path) : NULL;
    for (struct dirent *entry; list && (entry = readdir(list));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *below = tm__path_join(path, entry->d_name);
        if (below) sum += tree_bytes(below);
        free(below);
    }
    if (list) closedir(list);
    return sum;
}

static tm_status drop(sweep *s, const char *folder, const char *name, size_t *count) {
    char *path = tm__format("%s/%s/%s", s->directory, folder, name);
    char *aside = path ? tm__format("%s/%s/.%s.tmp-%ld-gc", s->directory, folder, name, (long)getpid()) : NULL;
    tm_status status = aside ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        ++*count;
        s->report->bytes += tree_bytes(path);
        if (!s->o->dry_run) {
            bool moved = tm__path_is_directory(path) && rename(path, aside) == 0;
            status = tm__remove_tree(moved ? aside : path);
        }
    }
    free(aside);
    free(path);
    return status;
}

typedef bool tm__unneeded(const sweep *s, const char *folder, const char *name);

static tm_status each(sweep *s, const char *folder, tm__unneeded *goes, size_t *count) {
    char *path = tm__path_join(s->directory, folder);
    if (!path) return tm__fail_memory();
    DIR *list = opendir(path);
    tm_status status = list || errno == ENOENT ? TM_OK : tm__fail_errno(path, "cannot be read");
    for (struct dirent *entry; status == TM_OK && list && (entry = readdir(list));)
        if (goes(s, folder, entry->d_name)) status = drop(s, folder, entry->d_name, count);
    if (list) closedir(list);
    free(path);
    return status;
}

static bool model_goes(const sweep *s, const char *folder, const char *name) {
    (void)folder;
    if (name[0] == '.') return is_key(name + 1, strlen(name + 1)) && strstr(name, ".tmp"); /* of a killed process */
    return strlen(name) == 64 && is_key(name, 64) && !is_needed(s, name);
}

static bool lock_goes(const sweep *s, const char *folder, const char *name) {
    (void)folder;
    for (size_t p = 0; p < s->plan_count; p++)
        for (size_t i = 0; i < s->plans[p]->job_count; i++)
            if (strcmp(s->plans[p]->jobs[i].key, name) == 0) return false;
    return strlen(name) == 64 && is_key(name, 64);
}

/* A job's own files, which only a killed one leaves. */
static bool leftover_goes(const sweep *s, const char *folder, const char *name) {
    (void)s;
    (void)folder;
    return is_key(name, strlen(name)) && name[64] == '-';
}

/* SEED-HASH of no plan's world. */
static bool world_goes(const sweep *s, const char *folder, const char *name) {
    size_t digits = strspn(name, "0123456789");
    (void)folder;
    if (digits == 0 || name[digits] != '-' || strspn(name + digits + 1, "0123456789abcdef") != 8 || name[digits + 9])
        return false;
    for (size_t p = 0; p < s->plan_count; p++)
        for (size_t w = 0; w < s->plans[p]->world_count; w++)
            if (strcmp(strrchr(s->plans[p]->world_dirs[w], '/') + 1, name) == 0) return false;
    return true;
}

/* The names of another plan. */
static bool names_go(const sweep *s, const char *folder, const char *name) {
    (void)folder;
    if (name[0] == '.') return false;
    for (size_t p = 0; p < s->plan_count; p++) {
        char *path = tm__plan_names_path(s->plans[p]);
        bool same = !path || strcmp(strrchr(path, '/') + 1, name) == 0;
        free(path);
        if (same) return false;
    }
    return true;
}

/* A link that leads nowhere any more; in a dry run to what would go. */
static bool link_goes(const sweep *s, const char *folder, const char *name) {
    char target[256], *path = tm__format("%s/%s/%s", s->directory, folder, name);
    ssize_t len = path ? readlink(path, target, sizeof target - 1) : -1;
    free(path);
    if (len < 0) return false;
    target[len] = 0;
    const char *last = strrchr(target, '/');
    return last && strlen(last + 1) == 64 && is_key(last + 1, 64) && !is_needed(s, last + 1);
}

static tm_status drop_links(sweep *s, size_t *count) {
    tm_status status = each(s, "by-name", names_go, count);
    for (size_t p = 0; p < s->plan_count && status == TM_OK; p++) {
        char *path = tm__plan_names_path(s->plans[p]);
        status = path ? each(s, path + strlen(s->directory) + 1, link_goes, count) : tm__fail_memory();
        free(path);
    }
    return status;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

/* Jobs that are done without a run: tm_plan_run() alone. Locks end with their holders. */
static tm_status nobody_works(const char *directory) {
    char *path = tm__path_join(directory, "locks");
    if (!path) return tm__fail_memory();
    DIR *list = opendir(path);
    tm_status status = TM_OK;
    for (struct dirent *entry; status == TM_OK && list && (entry = readdir(list));) {
        char *file = tm__path_join(path, entry->d_name);
        int lock = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
        if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
            status =
                tm__fail(TM_EXISTS, directory, NULL, "wait for its end, or stop it", "temper run is at work there");
        if (lock >= 0) close(lock);
        if (!file) status = tm__fail_memory();
        free(file);
    }
    if (list) closedir(list);
    free(path);
    return status;
}

static tm_status sweep_results(sweep *s) {
    const char **keys = NULL, **names = tm__alloc(s->plan_count + 1, sizeof *names);
    size_t count = 0, cap = 0;
    tm__store *store = NULL;
    tm_status status = names ? TM_OK : tm__fail_memory();
    for (size_t p = 0; p < s->plan_count && status == TM_OK; p++) {
        names[p] = s->plans[p]->name;
        for (size_t i = 0; i < s->plans[p]->job_count && status == TM_OK; i++) {
            if (!tm__grow((void **)&keys, &cap, count + 1, sizeof *keys)) status = tm__fail_memory();
            if (status == TM_OK) keys[count++] = s->plans[p]->jobs[i].key;
        }
    }
    if (status == TM_OK) status = tm__store_open(s->directory, false, &store);
    if (status == TM_OK)
        status = tm__store_keep(store, keys, count, names, s->plan_count, s->o->dry_run, &s->report->results);
    tm__store_close(store);
    free((void *)names);
    free((void *)keys);
    return status;
}

/* Plans that were never run there, or by another version of the program, or on another instruction set, would let
 * everything go. */
static tm_status something_stays(const sweep *s) {
    tm_plan_job_info info;
    for (size_t p = 0; p < s->plan_count; p++)
        for (size_t i = 0; tm_plan_job(s->plans[p], i, &info); i++)
            if (info.done) return TM_OK;
    return tm__fail(TM_INVALID, s->directory, NULL,
                    "name the plans that were run there, by this version and on this machine; --dry-run counts",
                    "nothing there is of the named plans, so all of it would go");
}

static tm_status sweep_all(sweep *s) {
    tm_gc_report *report = s->report;
    if (!s->o->dry_run) TM__TRY(something_stays(s));
    for (size_t p = 0; p < s->plan_count; p++) TM__TRY(need_models(s, s->plans[p]));
    if (s->key_count) qsort(s->keys, s->key_count, sizeof *s->keys, by_key);
    TM__TRY(each(s, "models", model_goes, &report->models));
    TM__TRY(each(s, "worlds", world_goes, &report->worlds));
    TM__TRY(each(s, "locks", lock_goes, &report->others));
    TM__TRY(each(s, "tmp", leftover_goes, &report->others));
    TM__TRY(drop_links(s, &report->others));
    return s->o->keep_results ? TM_OK : sweep_results(s);
}

tm_status tm_gc(const char *directory, tm_plan *const *plans, size_t count, const tm_gc_options *options,
                tm_gc_report *report) {
    static const tm_gc_options plain = {0};
    sweep s = {
        .directory = directory, .plans = plans, .plan_count = count, .o = options ? options : &plain, .report = report};
    tm__store *store;
    *report = (tm_gc_report){0};
    if (count == 0)
        return tm__fail(TM_INVALID, NULL, "plans", "name those whose models and results stay", "there is none");
    TM__TRY(tm__store_open(directory, false, &store)); /* a directory of temper run, and nobody's other one */
    tm__store_close(store);
    int lock;
    TM__TRY(tm__directory_lock(directory, LOCK_EX | LOCK_NB, &lock));
    tm_status status = nobody_works(directory);
    if (status == TM_OK) status = sweep_all(&s);
    close(lock);
    free((void *)s.keys);
    return status;
}
