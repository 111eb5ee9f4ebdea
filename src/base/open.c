/* SPDX-License-Identifier: Apache-2.0 */
#include "base/open.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

const char *bq_file_why(int error) {
    if (error == BQ_NOT_FILE) return "not a regular file";
    if (error == BQ_FILE_LINK) return "a link, and blockq follows none where it writes";
    if (error == BQ_FILE_NAMES) return "a file with several names (hard links), which would all be written";
    return strerror(error);
}

/* Without O_NONBLOCK opening a FIFO would wait until somebody opens its other end; with it the error is
 * ENXIO.  Regular files ignore the flag. */
int bq_file_open_any(const char *path, int flags, int *fd, struct stat *st) {
    *fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    int err = *fd < 0 ? errno : fstat(*fd, st) ? errno : S_ISDIR(st->st_mode) ? EISDIR : 0;
    if (err && *fd >= 0) close(*fd);
    if (err) *fd = -1;
    return err == ENXIO ? BQ_NOT_FILE : err;
}

static int give_up(int *fd, int err) {
    if (err) close(*fd), *fd = -1;
    return err;
}

int bq_file_open(const char *path, int flags, int *fd) {
    struct stat st;
    int err = bq_file_open_any(path, flags, fd, &st);
    return err ? err : give_up(fd, S_ISREG(st.st_mode) ? 0 : BQ_NOT_FILE);
}

static int judge(const struct stat *st, bool folder, bool written) {
    if (S_ISLNK(st->st_mode)) return BQ_FILE_LINK;
    if (folder) return S_ISDIR(st->st_mode) ? 0 : ENOTDIR;
    if (!S_ISREG(st->st_mode)) return S_ISDIR(st->st_mode) ? EISDIR : BQ_NOT_FILE;
    return written && st->st_nlink > 1 ? BQ_FILE_NAMES : 0;
}

/* With O_NOFOLLOW a link gives one of several errors: look whether it is one. */
static int explain(const char *path, int err) {
    struct stat st;
    bool link = (err == ELOOP || err == EMLINK || err == ENOTDIR) && lstat(path, &st) == 0;
    return link && S_ISLNK(st.st_mode) ? BQ_FILE_LINK : err;
}

int bq_file_open_own(const char *path, int flags, int *fd) {
    struct stat st;
    int err = bq_file_open_any(path, (flags & ~O_TRUNC) | O_NOFOLLOW, fd, &st);
    if (err) return explain(path, err);
    err = judge(&st, false, (flags & O_ACCMODE) != O_RDONLY);
    if (!err && (flags & O_TRUNC) && ftruncate(*fd, 0)) err = errno;
    return give_up(fd, err);
}

int bq_file_create(const char *path, int *fd) {
    unlink(path);
    return bq_file_open_own(path, O_RDWR | O_CREAT | O_EXCL, fd);
}

int bq_dir_open(const char *path, bool own, int *fd) {
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (own ? O_NOFOLLOW : 0));
    return *fd < 0 ? explain(path, errno) : 0;
}

int bq_path_own(const char *path, bool folder, bool written) {
    struct stat st;
    return lstat(path, &st) ? 0 : judge(&st, folder, written);
}
