/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/lock.h"

#include "base/die.h"
#include "base/log.h"
#include "io/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void read_holder(int fd, char who[128]) {
    ssize_t n = pread(fd, who, 127, 0);
    who[n > 0 ? n : 0] = 0;
    who[strcspn(who, "\n")] = 0;
}

/* Write who holds the lock, for messages.  The lock does not depend on it. */
static void sign(int fd) {
    char host[64] = "", text[128];
    gethostname(host, sizeof host - 1);
    int n = snprintf(text, sizeof text, "host %s, pid %ld\n", host, (long)getpid());
    if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
        bq_log(BQ_DEBUG, "the lock of the run directory stays unsigned: %s", strerror(errno));
}

/* A lock on the file: 0, or an errno; EAGAIN or EACCES: another process has it. */
static int lock_file(int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (bq_fault("lock_take")) return ENOLCK;
    return fcntl(fd, F_OFD_SETLK, &whole) ? errno : 0;
}

static bool is_held(int error) { return error == EAGAIN || error == EACCES; }

static void keep(bq_lock *lock, int fd, int error, const char *path) {
    if (error)
        bq_log(BQ_WARN, "no lock on '%s' (%s): see to it that only one run uses this directory", path,
               strerror(error));
    sign(fd);
    *lock = (bq_lock){fd, true};
}

int bq_lock_take_at(bq_lock *lock, const char *dir, const char *file, const char *option) {
    char path[BQ_PATH], who[128];
    *lock = (bq_lock){0};
    bq_path_join(path, sizeof path, dir, file);
    int fd, error = bq_file_open_own(path, O_RDWR | O_CREAT, &fd);
    if (error) return bq_refuse(BQ_USAGE, "cannot open '%s': %s", path, bq_file_why(error));
    error = lock_file(fd);
    if (is_held(error)) {
        read_holder(fd, who);
        close(fd);
        return bq_refuse(BQ_USAGE, "%s is in use by another run (%s); wait for its end, or give another %s",
                         dir, who[0] ? who : "of which nothing is known", option);
    }
    keep(lock, fd, error, path);
    return BQ_OK;
}

int bq_lock_take(bq_lock *lock, const char *run_dir) {
    return bq_lock_take_at(lock, run_dir, "ckpt/lock", "--out");
}

bool bq_lock_try(bq_lock *lock, const char *dir, const char *file) {
    char path[BQ_PATH];
    *lock = (bq_lock){0};
    bq_path_join(path, sizeof path, dir, file);
    int fd, error = bq_file_open_own(path, O_RDWR | O_CREAT, &fd);
    if (error) return true; /* the caller's own files will say why */
    error = lock_file(fd);
    if (is_held(error)) {
        close(fd);
        return false;
    }
    keep(lock, fd, error, path);
    return true;
}

bq_lock_state bq_lock_look(const char *run_dir, char who[128]) {
    char path[BQ_PATH];
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd;
    who[0] = 0;
    bq_path_join(path, sizeof path, run_dir, "ckpt/lock");
    if (bq_file_open_own(path, O_RDONLY, &fd)) return BQ_LOCK_FREE;
    bool known = fcntl(fd, F_OFD_GETLK, &whole) == 0;
    read_holder(fd, who);
    close(fd);
    bq_log_clean(who, 0);
    return !known ? BQ_LOCK_UNKNOWN : whole.l_type == F_UNLCK ? BQ_LOCK_FREE : BQ_LOCK_HELD;
}

void bq_lock_release(bq_lock *lock) {
    if (lock->held) close(lock->fd);
    *lock = (bq_lock){0};
}
