/* file.c: paths, reading, mapping, the sequential writer, directories. Output that must appear whole: outdir.c. */
#include "base/file.h"
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- paths ------------------------------------------------------------------------------------------------------- */

char *tm__path_join(const char *directory, const char *name) {
    size_t len = strlen(directory);
    const char *slash = len == 0 || directory[len - 1] == '/' ? "" : "/";
    return tm__format("%s%s%s", directory, slash, name);
}

bool tm__path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool tm__path_is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool tm__path_is_empty_directory(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return false;
    struct dirent *entry;
    bool empty = true;
    while (errno = 0, entry = readdir(directory), empty && (entry || errno)) /* an error may hide a file */
        empty = entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
    closedir(directory);
    return empty;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static tm_status open_to_read(const char *path, int *fd, struct stat *info) {
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return tm__fail(TM_NOT_FOUND, path, NULL, "check the path", "no such file");
    if (*fd < 0) return tm__fail_errno(path, "cannot open");
    tm_status status = TM_OK;
    if (fstat(*fd, info) != 0)
        status = tm__fail_errno(path, "cannot inspect");
    else if (S_ISDIR(info->st_mode))
        status = tm__fail(TM_IO, path, NULL, "name a file in it", "is a directory");
    if (status != TM_OK) close(*fd);
    return status;
}

/* Reads to the end. A pipe or a file of /proc says nothing useful about its size, so the buffer grows as needed. */
static tm_status read_all(int fd, const char *path, size_t expected, size_t max_bytes, char **data, size_t *len) {
    tm_status status = TM_OK;
    char *bytes = NULL;
    size_t used = 0, cap = 0;
    for (;;) {
        size_t need = used == 0 ? TM__MAX(expected, (size_t)4095) + 1 : used + 2;
        if (cap - used < 2 && !tm__grow((void **)&bytes, &cap, need, 1)) TM__TRY_GOTO(status, tm__fail_memory(), done);
        ssize_t got = read(fd, bytes + used, cap - used - 1);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) TM__TRY_GOTO(status, tm__fail_errno(path, "cannot read"), done);
        if (got == 0) break;
        used += (size_t)got;
        if (max_bytes && used > max_bytes)
            TM__TRY_GOTO(status, tm__fail(TM_FORMAT, path, NULL, NULL, "larger than %zu bytes", max_bytes), done);
    }
    bytes[used] = 0;
    *data = bytes;
    *len = used;
    return TM_OK;
done:
    free(bytes);
    return status;
}

tm_status tm__file_read(const char *path, size_t max_bytes, char **data, size_t *len) {
    int fd;
    struct stat info;
    size_t length = 0;
    TM__TRY(open_to_read(path, &fd, &info));
    tm_status status = TM_OK;
    if (max_bytes && info.st_size > 0 && (uint64_t)info.st_size > max_bytes)
        status = tm__fail(TM_FORMAT, path, NULL, NULL, "larger than %zu bytes", max_bytes);
    else
        status = read_all(fd, path, info.st_size > 0 ? (size_t)info.st_size + 1 : 0, max_bytes, data, &length);
    close(fd);
    if (status == TM_OK && len) *len = length;
    return status;
}

tm_status tm__file_map(const char *path, tm__mapping *mapping) {
    int fd;
    struct stat info;
    TM__TRY(open_to_read(path, &fd, &info));
    tm_status status = TM_OK;
    tm__mapping mapped = {0};
    if (!S_ISREG(info.st_mode)) {
        status = tm__fail(TM_IO, path, NULL, NULL, "is not a regular file");
    } else if (info.st_size > 0) {
        void *memory = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (memory == MAP_FAILED)
            status = tm__fail_errno(path, "cannot map");
        else
            mapped = (tm__mapping){memory, (size_t)info.st_size};
    }
    close(fd);
    if (status == TM_OK) *mapping = mapped;
    return status;
}

void tm__file_unmap(tm__mapping *mapping) {
    if (mapping->data) munmap((void *)mapping->data, mapping->len);
    *mapping = (tm__mapping){0};
}

void tm__file_unneeded(const tm__mapping *mapping, const void *data, size_t len) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)mapping->data, at = (uintptr_t)data;
    if (at < begin || len > mapping->len || at - begin > mapping->len - len) return; /* a copy of somebody's */
    uintptr_t from = (at + page - 1) / page * page, end = (at + len) / page * page;
    if (from < end) (void)madvise((void *)from, end - from, MADV_DONTNEED); /* a hint: failing, the pages stay */
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

enum { WRITER_BUFFER = 1 << 18 };

static int write_fully(int fd, const uint8_t *data, size_t len) {
    while (len > 0) {
        ssize_t done = write(fd, data, TM__MIN(len, (size_t)1 << 30));
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return errno;
        if (done == 0) return EIO;
        data += done;
        len -= (size_t)done;
    }
    return 0;
}

/* A device or a pipe cannot be synchronised and says EINVAL; that is no failure to store. */
int tm__sync_fd(int fd) {
    while (fsync(fd) != 0) {
        if (errno == EINTR) continue;
        return errno == EINVAL || errno == ENOTSUP || errno == EROFS ? 0 : errno;
    }
    return 0;
}

static void flush(tm__writer *writer) {
    if (!writer->error) writer->error = write_fully(writer->fd, writer->buffer, writer->used);
    writer->used = 0;
}

static void release(tm__writer *writer) {
    free(writer->path);
    free(writer->buffer);
    *writer = (tm__writer){.fd = -1};
}

tm_status tm__writer_open(tm__writer *writer, const char *path) {
    *writer = (tm__writer){.fd = -1};
    tm_status status = TM_OK;
    writer->path = tm__strdup(path);
    writer->buffer = tm__alloc_aligned(WRITER_BUFFER);
    if (!writer->path || !writer->buffer) TM__TRY_GOTO(status, tm__fail_memory(), fail);
    writer->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (writer->fd < 0) TM__TRY_GOTO(status, tm__fail_errno(path, "cannot create"), fail);
    return TM_OK;
fail:
    release(writer);
    return status;
}

void tm__writer_put(tm__writer *writer, const void *data, size_t len) {
    if (writer->error || len == 0) return;
    if (len > WRITER_BUFFER - writer->used) flush(writer);
    if (len > WRITER_BUFFER) {
        if (!writer->error) writer->error = write_fully(writer->fd, data, len);
        return;
    }
    memcpy(writer->buffer + writer->used, data, len);
    writer->used += len;
}

tm_status tm__writer_close(tm__writer *writer) {
    if (writer->fd < 0 || !writer->path) return TM_OK;
    flush(writer);
    if (!writer->error) writer->error = tm__sync_fd(writer->fd);
    if (close(writer->fd) != 0 && !writer->error && errno != EINTR) writer->error = errno;
    tm_status status = TM_OK;
    if (writer->error) {
        errno = writer->error;
        status = tm__fail_errno(writer->path, "cannot write");
    }
    release(writer);
    return status;
}

void tm__writer_abandon(tm__writer *writer) {
    if (writer->fd < 0 || !writer->path) return;
    close(writer->fd);
    release(writer);
}

int tm__sync_directory(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno;
    int error = tm__sync_fd(fd);
    close(fd);
    return error;
}

tm_status tm__path_split(const char *path, char **directory, char **name) {
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    size_t start = len;
    while (start > 0 && path[start - 1] != '/') start--;
    *name = tm__strndup(path + start, len - start);
    size_t end = start;
    while (end > 1 && path[end - 1] == '/') end--;
    *directory = start ? tm__strndup(path, end) : tm__strdup(".");
    if (*name && *directory) return TM_OK;
    free(*name);
    free(*directory);
    *name = *directory = NULL;
    return tm__fail_memory();
}

/* Opens and locks what stands under the temporary name. EAGAIN: its owner gave it away while this process waited. */
static int lock_aside(tm__aside *aside, unsigned mode) {
    struct stat locked, named;
    aside->fd = open(aside->path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, (mode_t)mode);
    if (aside->fd < 0) return errno;
    while (flock(aside->fd, LOCK_EX) != 0)
        if (errno != EINTR) break; /* no locks here: the temporary name is as safe as the target's own */
    bool ours = fstat(aside->fd, &locked) == 0 && stat(aside->path, &named) == 0 && locked.st_ino == named.st_ino;
    int error = ours && ftruncate(aside->fd, 0) != 0 ? errno : ours ? 0 : EAGAIN;
    if (!error) return 0;
    close(aside->fd);
    return error;
}

tm_status tm__aside_begin(tm__aside *aside, const char *target, unsigned mode) {
    char *directory, *name;
    *aside = (tm__aside){.fd = -1};
    TM__TRY(tm__path_split(target, &directory, &name));
    aside->path = tm__format("%s/.%s.tmp", directory, name);
    free(directory);
    free(name);
    if (!aside->path) return tm__fail_memory();
    int error;
    do error = lock_aside(aside, mode);
    while (error == EAGAIN);
    if (!error) return TM_OK;
    free(aside->path);
    *aside = (tm__aside){.fd = -1};
    errno = error;
    return tm__fail_errno(target, "cannot create");
}

void tm__aside_end(tm__aside *aside, bool remove) {
    if (!aside->path) return;
    if (remove) unlink(aside->path);
    close(aside->fd);
    free(aside->path);
    *aside = (tm__aside){.fd = -1};
}

static tm_status sync_parent(const char *path) {
    char *directory, *name;
    TM__TRY(tm__path_split(path, &directory, &name));
    errno = tm__sync_directory(directory);
    tm_status status = errno ? tm__fail_errno(directory, "cannot synchronise") : TM_OK;
    free(directory);
    free(name);
    return status;
}

tm_status tm__aside_fill(const tm__aside *aside, const char *target, const void *data, size_t len) {
    int error = write_fully(aside->fd, data, len);
    if (!error) error = tm__sync_fd(aside->fd);
    errno = error;
    return error ? tm__fail_errno(target, "cannot write") : TM_OK;
}

tm_status tm__file_write(const char *path, const void *data, size_t len) {
    tm__aside aside;
    TM__TRY(tm__aside_begin(&aside, path, 0666));
    tm_status status = tm__aside_fill(&aside, path, data, len);
    if (status == TM_OK && rename(aside.path, path) != 0) status = tm__fail_errno(path, "cannot put in place");
    tm__aside_end(&aside, status != TM_OK);
    return status == TM_OK ? sync_parent(path) : status;
}

/* ---- directories ------------------------------------------------------------------------------------------------- */

tm_status tm__make_directories(const char *path) {
    tm_status status = TM_OK;
    char *part = tm__strdup(path);
    if (!part) return tm__fail_memory();
    for (char *at = part; status == TM_OK && *at;) {
        while (*at == '/') at++;
        while (*at && *at != '/') at++;
        char kept = *at;
        *at = 0;
        if (mkdir(part, 0777) != 0) {
            int error = errno; /* looking whether it is there already would set another */
            bool there = tm__path_is_directory(part);
            errno = error;
            if (!there) status = tm__fail_errno(part, "cannot make directory");
        }
        *at = kept;
    }
    free(part);
    return status;
}

/* Removes what `name` in `parent` holds, then itself. Links are removed, never followed. Returns an errno. */
static int remove_at(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) return 0;
    if (errno != EISDIR && errno != EPERM) return errno;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? 0 : errno;
    DIR *directory = fdopendir(fd);
    if (!directory) {
        close(fd);
        return ENOMEM;
    }
    int error = 0;
    struct dirent *entry;
    while (!error && (errno = 0, entry = readdir(directory)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) error = remove_at(fd, entry->d_name);
    if (!error) error = errno;
    closedir(directory);
    if (!error && unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT) error = errno;
    return error;
}

tm_status tm__remove_tree(const char *path) {
    int error = remove_at(AT_FDCWD, path);
    if (!error) return TM_OK;
    errno = error;
    return tm__fail_errno(path, "cannot remove");
}
