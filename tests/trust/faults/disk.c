/* Disk faults: when preloaded, fails or kills at the n-th operation on files of one folder.

   Counted operations: creating a file, a folder or a link, writing, syncing, renaming and removing.
   trust_arm() arms a process; children inherit only the library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL, FULL, FULL_ONCE };

static char folder[PATH_MAX];
static int mode;
static long at, done;

/* Count operations on files in `path` from now on; number `nth`, from 1, is the fault. */
void trust_arm(const char *path, int what, long nth) {
    strncpy(folder, path, sizeof folder - 1);
    mode = what;
    at = nth;
    done = 0;
}

long trust_count(void) { return __atomic_load_n(&done, __ATOMIC_RELAXED); }

static int inside(const char *path) {
    return folder[0] && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int inside_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

/* 0 to continue, 1 for the faulty operation itself, 2 for later ones on a disk that stays full. */
static int fault(void) {
    long now = __atomic_add_fetch(&done, 1, __ATOMIC_RELAXED);
    if (mode == NOTHING || now < at) return 0;
    if (now == at) return 1;
    return mode == FULL ? 2 : 0;
}

static void die(void) { kill(getpid(), SIGKILL); }

/* Operations that succeed on a full disk. */
static void passes(void) {
    if (fault() == 1 && mode == KILL) die();
}

/* True if the operation fails for lack of space. */
static int fails(void) {
    int what = fault();
    if (!what) return 0;
    if (mode == KILL) die();
    errno = ENOSPC;
    return 1;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        mode_t permissions = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list more; \
            va_start(more, flags); \
            permissions = va_arg(more, mode_t); \
            va_end(more); \
        } \
        if ((flags & O_CREAT) && inside(path) && access(path, F_OK) && fails()) return -1; \
        return real(path, flags, permissions); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at_folder, const char *path, int flags, ...) { \
        REAL(name); \
        mode_t permissions = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list more; \
            va_start(more, flags); \
            permissions = va_arg(more, mode_t); \
            va_end(more); \
        } \
        if ((flags & O_CREAT) && inside(path) && access(path, F_OK) && fails()) return -1; \
        return real(at_folder, path, flags, permissions); \
    }
OPENAT(openat)
OPENAT(openat64)

/* The faulty operation writes half, like a disk that fills up or a kill in the middle. */
ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (!inside_fd(fd)) return real(fd, data, size);
    int what = fault();
    if (!what) return real(fd, data, size);
    if (what == 1 && size > 1) {
        ssize_t half = real(fd, data, size / 2);
        if (mode == KILL) die();
        if (mode == FULL) return half;
    }
    if (mode == KILL) die();
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    REAL(pwrite64);
    if (inside_fd(fd) && fails()) return -1;
    return real(fd, data, size, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (inside_fd(fd) && fails()) return -1;
    return real(fd, parts, count);
}

int fsync(int fd) {
    REAL(fsync);
    if (inside_fd(fd) && fails()) return -1;
    return real(fd);
}

int mkdir(const char *path, mode_t permissions) {
    REAL(mkdir);
    if (inside(path) && access(path, F_OK) && fails()) return -1;
    return real(path, permissions);
}

int link(const char *path, const char *other) {
    REAL(link);
    if (inside(other) && fails()) return -1;
    return real(path, other);
}

int linkat(int from, const char *path, int to, const char *other, int flags) {
    REAL(linkat);
    if (inside(other) && fails()) return -1;
    return real(from, path, to, other, flags);
}

int rename(const char *path, const char *other) {
    REAL(rename);
    if (inside(other)) passes();
    return real(path, other);
}

int unlink(const char *path) {
    REAL(unlink);
    if (inside(path)) passes();
    return real(path);
}
