/* outdir.c: a directory that appears whole or not at all, also under kill -9 and power loss.
 *
 *   fill  <parent>/.<name>.tmp-<pid>-<n>     locked (flock) by its owner for as long as it lives
 *   sync  every file, every directory
 *   swap  renameat2: RENAME_NOREPLACE into a free name, RENAME_EXCHANGE with an existing directory; an empty directory
 *         may always be replaced, and rename does that and never removes a full one
 *   sync  <parent>; then remove what was there before, which the exchange left under the temporary name
 *
 * Death before the swap leaves the old directory, after it the new one. What a dead process left beside the target is
 * removed by the next begin; the lock tells dead from alive, which a process id alone cannot do across containers.
 */
#include "base/base.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char overwrite_hint[] = "choose another name, or ask to overwrite";

/* A number this process has not used for a temporary name yet. */
static unsigned aside_number(void) {
    static atomic_uint next;
    return atomic_fetch_add(&next, 1);
}

/* Opens and locks a temporary directory. -1: somebody alive holds it, or it cannot be locked here. */
static int lock_directory(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void remove_leftovers(const char *parent, const char *name) {
    DIR *directory = opendir(parent);
    if (!directory) return;
    size_t len = strlen(name);
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        const char *file = entry->d_name;
        long pid;
        unsigned number;
        int end = 0;
        if (file[0] != '.' || strncmp(file + 1, name, len) != 0) continue;
        if (sscanf(file + 1 + len, ".tmp-%ld-%u%n", &pid, &number, &end) != 2 || file[1 + len + (size_t)end]) continue;
        char *path = tm__path_join(parent, file);
        int lock = path ? lock_directory(path) : -1;
        if (lock >= 0) {
            (void)tm__remove_tree(path); /* not ours to report: it is in nobody's way */
            close(lock);
        }
        free(path);
    }
    closedir(directory);
}

/* Makes the directory to fill. Another process may take a fresh directory for a leftover in the instant before it is
 * locked; then the next number is tried. */
static tm_status make_aside(tm__outdir *out, const char *parent, const char *name) {
    for (int attempt = 0; attempt < 100; attempt++) {
        free(out->aside);
        out->aside = tm__format("%s/.%s.tmp-%ld-%u", parent, name, (long)getpid(), aside_number());
        if (!out->aside) return tm__fail_memory();
        if (mkdir(out->aside, 0777) != 0) {
            if (errno == EEXIST) continue;
            return tm__fail_errno(out->aside, "cannot make directory");
        }
        struct stat locked, named;
        out->lock = open(out->aside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        bool taken = out->lock < 0 || (flock(out->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK);
        if (!taken && fstat(out->lock, &locked) == 0 && stat(out->aside, &named) == 0 && locked.st_ino == named.st_ino)
            return TM_OK;
        if (out->lock >= 0) close(out->lock);
        rmdir(out->aside);
    }
    return tm__fail(TM_IO, out->aside, NULL, NULL, "cannot make a temporary directory");
}

/* An existing link stands for the directory it names, which may be absent parents and all otherwise. */
static tm_status resolve_target(const char *target, char **resolved) {
    struct stat info;
    char *real = lstat(target, &info) == 0 && S_ISLNK(info.st_mode) ? realpath(target, NULL) : NULL;
    *resolved = tm__strdup(real ? real : target);
    free(real);
    if (!*resolved) return tm__fail_memory();
    size_t len = strlen(*resolved);
    while (len > 1 && (*resolved)[len - 1] == '/') (*resolved)[--len] = 0;
    return TM_OK;
}

tm_status tm__outdir_clear(const char *target) {
    char *resolved = NULL, *parent = NULL, *name = NULL;
    TM__TRY(resolve_target(target, &resolved));
    tm_status status = tm__path_split(resolved, &parent, &name);
    if (status == TM_OK) remove_leftovers(parent, name);
    free(resolved);
    free(parent);
    free(name);
    return status;
}

/* A mount point cannot be replaced by renaming, as the end of a long run would find out. */
static bool is_mount_point(const char *path) {
    struct statx info;
    return statx(AT_FDCWD, path, 0, STATX_TYPE, &info) == 0 && (info.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

tm_status tm__outdir_begin(tm__outdir *out, const char *target, bool overwrite) {
    tm_status status = TM_OK;
    char *parent = NULL, *name = NULL;
    tm__outdir begun = {.overwrite = overwrite};
    TM__TRY_GOTO(status, resolve_target(target, &begun.target), done);
    TM__TRY_GOTO(status, tm__path_split(begun.target, &parent, &name), done);
    if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        TM__TRY_GOTO(status, tm__fail(TM_INVALID, target, NULL, "name the directory to make", "cannot be an output"),
                     done);
    if (tm__path_exists(begun.target) && !tm__path_is_directory(begun.target))
        TM__TRY_GOTO(status, tm__fail(TM_EXISTS, target, NULL, "choose another name", "exists and is no directory"),
                     done);
    if (tm__path_exists(begun.target) && !overwrite && !tm__path_is_empty_directory(begun.target))
        TM__TRY_GOTO(status, tm__fail(TM_EXISTS, target, NULL, overwrite_hint, "already exists"), done);
    if (is_mount_point(begun.target))
        TM__TRY_GOTO(status, tm__fail(TM_UNSUPPORTED, target, NULL, "name a directory in it", "is a mount point"),
                     done);
    TM__TRY_GOTO(status, tm__make_directories(parent), done);
    remove_leftovers(parent, name);
    TM__TRY_GOTO(status, make_aside(&begun, parent, name), done);
    *out = begun;
    begun = (tm__outdir){0};
done:
    free(begun.target);
    free(begun.aside);
    free(parent);
    free(name);
    return status;
}

/* Synchronises everything below an open directory. Returns an errno. Takes over the descriptor. */
static int sync_tree(int fd) {
    DIR *directory = fdopendir(fd);
    if (!directory) {
        close(fd);
        return ENOMEM;
    }
    int error = 0;
    struct dirent *entry;
    while (!error && (errno = 0, entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        struct stat info;
        if (fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
            error = errno;
        } else if (S_ISDIR(info.st_mode) || S_ISREG(info.st_mode)) {
            int child = openat(fd, entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
            if (child < 0) {
                error = errno;
            } else if (S_ISDIR(info.st_mode)) {
                error = sync_tree(child);
            } else {
                error = tm__sync_fd(child);
                close(child);
            }
        }
    }
    if (!error) error = errno;
    if (!error) error = tm__sync_fd(fd);
    closedir(directory);
    return error;
}

/* `*exchanged`: what stood at the target is now under the temporary name. */
static tm_status swap(const tm__outdir *out, bool *exchanged) {
    *exchanged = false;
    for (int attempt = 0; attempt < 100; attempt++) {
        if (renameat2(AT_FDCWD, out->aside, AT_FDCWD, out->target, RENAME_NOREPLACE) == 0) return TM_OK;
        if (errno == EINVAL ||
            errno == ENOSYS) { /* a file system without flags; a directory never replaces a full one */
            if (rename(out->aside, out->target) == 0) return TM_OK;
            if (errno != EEXIST && errno != ENOTEMPTY) return tm__fail_errno(out->target, "cannot put in place");
            if (out->overwrite)
                return tm__fail(TM_UNSUPPORTED, out->target, NULL, "remove it first, or write to another name",
                                "this file system cannot exchange two directories in one step");
        } else if (errno != EEXIST) {
            return tm__fail_errno(out->target, "cannot put in place");
        }
        if (!out->overwrite && rename(out->aside, out->target) == 0) return TM_OK; /* it was an empty directory */
        if (!out->overwrite) return tm__fail(TM_EXISTS, out->target, NULL, overwrite_hint, "already exists");
        *exchanged = renameat2(AT_FDCWD, out->aside, AT_FDCWD, out->target, RENAME_EXCHANGE) == 0;
        if (*exchanged) return TM_OK;
        if (errno != ENOENT) return tm__fail_errno(out->target, "cannot replace"); /* ENOENT: removed meanwhile */
    }
    return tm__fail(TM_IO, out->target, NULL, NULL, "comes and goes while being replaced");
}

tm_status tm__outdir_commit(tm__outdir *out) {
    assert(out->aside);
    tm_status status = TM_OK;
    char *parent = NULL, *name = NULL;
    bool exchanged = false;
    int root = open(out->aside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) TM__TRY_GOTO(status, tm__fail_errno(out->aside, "cannot open"), done);
    if ((errno = sync_tree(root)) != 0) TM__TRY_GOTO(status, tm__fail_errno(out->aside, "cannot synchronise"), done);
    TM__TRY_GOTO(status, tm__path_split(out->target, &parent, &name), done);
    TM__TRY_GOTO(status, swap(out, &exchanged), done);
    if ((errno = tm__sync_directory(parent)) != 0) status = tm__fail_errno(parent, "cannot synchronise");
    if (exchanged) (void)tm__remove_tree(out->aside); /* the output stands; a remainder goes with the next begin */
    free(out->aside);
    out->aside = NULL;
    close(out->lock);
done:
    free(parent);
    free(name);
    tm__outdir_abandon(out);
    return status;
}

void tm__outdir_abandon(tm__outdir *out) {
    if (out->aside) {
        tm_error kept = *tm_error_last(); /* clearing up must not hide why */
        if (tm__remove_tree(out->aside) != TM_OK)
            tm__fail(kept.status, kept.file, kept.field, kept.hint, "%s", kept.message);
        close(out->lock);
    }
    free(out->aside);
    free(out->target);
    *out = (tm__outdir){0};
}
