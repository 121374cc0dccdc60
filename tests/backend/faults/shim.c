/* Faults of disk and clock, between a program and its C library: loaded by LD_PRELOAD.

   What goes wrong, a shared file of 64-bit numbers says, which the test writes while we run.
   Nothing is wrong while they are all 0. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t sync_us_min, sync_us_max; /* how long a sync takes */
    int64_t wal_errno;                /* what writing below pg_wal gives */
    int64_t heap_errno;               /* what making a file below base longer gives */
    int64_t sync_errno;               /* what a sync gives, so many times */
    int64_t sync_errors;
    int64_t clock_seconds;            /* how far the clock is ahead */
    int64_t hits;                     /* how often something went wrong because of us */
};

static volatile struct control *control;
static __thread unsigned int chance;

__attribute__((constructor)) static void open_control(void) {
    const char *path = getenv("FAULTS_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared != MAP_FAILED) control = shared;
    close(fd);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int hit(int64_t number) {
    __atomic_add_fetch(&control->hits, 1, __ATOMIC_RELAXED);
    errno = (int)number;
    return -1;
}

static int below(int fd, const char *folder) {
    char link[40], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, folder) != NULL;
}

/* Whether writing up to `end` fails; the error, or 0. */
static int64_t refused(int fd, off_t end) {
    if (!control || (!control->wal_errno && !control->heap_errno)) return 0;
    int saved = errno;
    int64_t number = 0;
    if (control->wal_errno && below(fd, "/pg_wal/")) number = control->wal_errno;
    else if (control->heap_errno && below(fd, "/base/") && end > lseek(fd, 0, SEEK_END))
        number = control->heap_errno;
    errno = saved;
    return number;
}

static off_t sum(const struct iovec *pieces, int count) {
    off_t total = 0;
    for (int i = 0; i < count; i++) total += (off_t)pieces[i].iov_len;
    return total;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REAL(pwrite64);
    int64_t number = refused(fd, at + (off_t)count);
    return number ? hit(number) : real(fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t at) {
    REAL(pwritev64);
    int64_t number = refused(fd, at + sum(pieces, count));
    return number ? hit(number) : real(fd, pieces, count, at);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t at) {
    return pwritev64(fd, pieces, count, at);
}

int posix_fallocate64(int fd, off64_t at, off64_t count) {
    REAL(posix_fallocate64);
    int64_t number = refused(fd, at + count);
    if (!number) return real(fd, at, count);
    hit(number);
    return (int)number; /* this one returns its error */
}

int posix_fallocate(int fd, off_t at, off_t count) { return posix_fallocate64(fd, at, count); }

static int slow_sync(int fd, int (*real)(int)) {
    if (!control) return real(fd);
    int64_t least = control->sync_us_min, most = control->sync_us_max;
    if (most > 0) {
        if (!chance) chance = (unsigned int)getpid() + 1;
        usleep((useconds_t)(least + rand_r(&chance) % (most - least + 1)));
    }
    if (control->sync_errors > 0 && __atomic_fetch_sub(&control->sync_errors, 1, __ATOMIC_RELAXED) > 0)
        return hit(control->sync_errno);
    return real(fd);
}

int fsync(int fd) { REAL(fsync); return slow_sync(fd, real); }

int fdatasync(int fd) { REAL(fdatasync); return slow_sync(fd, real); }

static int64_t ahead(void) { return control ? control->clock_seconds : 0; }

int clock_gettime(clockid_t clock, struct timespec *told) {
    REAL(clock_gettime);
    int answer = real(clock, told);
    if (answer == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) told->tv_sec += ahead();
    return answer;
}

int gettimeofday(struct timeval *told, void *zone) {
    REAL(gettimeofday);
    int answer = real(told, zone);
    if (answer == 0) told->tv_sec += ahead();
    return answer;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}
