/* SPDX-License-Identifier: Apache-2.0 */
#include "io/folder.h"

#include "base/die.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* out = "name-host-", with '_' for each '/' in the host's name. */
static void begin_of(char *out, size_t n, const char *name) {
    char host[65] = "";
    gethostname(host, sizeof host - 1);
    for (char *c = host; *c; c++)
        if (*c == '/') *c = '_';
    snprintf(out, n, "%s-%s-", name, host);
}

/* Open and lock the new folder.  EAGAIN if another process has taken it for one that was left, and was
 * faster; else 0 or an errno. */
static int hold(bq_folder *f) {
    struct stat mine, there;
    int err = bq_dir_open(f->path, true, &f->fd);
    if (err) return err == ENOENT ? EAGAIN : err < 0 ? EPERM : err;
    if (flock(f->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        err = EAGAIN;
    else if (fstat(f->fd, &mine))
        err = errno;
    else if (lstat(f->path, &there) || mine.st_ino != there.st_ino || mine.st_dev != there.st_dev)
        err = EAGAIN;
    else if (mine.st_uid != geteuid())
        err = EPERM;
    if (err) close(f->fd);
    return err;
}

int bq_folder_make(bq_folder *f, const char *parent, const char *name) {
    char begin[128];
    begin_of(begin, sizeof begin, name);
    int err = bq_dir_make(parent);
    bool again = !err;
    for (int tries = 0; again && tries < 100; tries++) {
        BQ_CHECK(snprintf(f->path, sizeof f->path, "%s/%sXXXXXX", parent, begin) < (int)sizeof f->path,
                 "path too long: %.200s...", parent);
        err = mkdtemp(f->path) ? hold(f) : errno;
        again = err == EAGAIN;
    }
    if (err) f->path[0] = 0;
    return err;
}

static bool matches(const char *name, const char *const *patterns) {
    while (*patterns && fnmatch(*patterns, name, FNM_PERIOD)) patterns++;
    return *patterns;
}

/* Through the descriptor, so no change of names on the path can lead elsewhere. */
static void empty(int fd, const char *const *patterns) {
    int again = dup(fd);
    DIR *list = again < 0 ? NULL : fdopendir(again);
    if (list) rewinddir(list);
    for (struct dirent *e; list && (e = readdir(list));)
        if (matches(e->d_name, patterns)) unlinkat(fd, e->d_name, 0);
    if (list) closedir(list);
}

int64_t bq_folder_clear(const char *dir, const char *const *patterns, bool dry, int64_t *files) {
    int fd;
    int64_t bytes = 0;
    DIR *list = bq_dir_open(dir, true, &fd) ? NULL : fdopendir(fd);
    for (struct dirent *e; list && (e = readdir(list));) {
        struct stat st;
        if (!matches(e->d_name, patterns) || fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (!S_ISREG(st.st_mode) || (!dry && unlinkat(fd, e->d_name, 0))) continue;
        bytes += st.st_size, ++*files;
    }
    if (list) closedir(list);
    return bytes;
}

void bq_folder_remove(bq_folder *f, const char *const *patterns) {
    if (!f->path[0]) return;
    empty(f->fd, patterns);
    rmdir(f->path);
    close(f->fd);
    f->path[0] = 0;
}

void bq_folder_remove_left(const char *parent, const char *name, const char *const *patterns) {
    char begin[128];
    begin_of(begin, sizeof begin, name);
    size_t n = strlen(begin);
    DIR *list = opendir(parent);
    for (struct dirent *e; list && (e = readdir(list));) {
        bq_folder f;
        struct stat st;
        if (strncmp(e->d_name, begin, n) || strlen(e->d_name) != n + 6) continue;
        bq_path_join(f.path, sizeof f.path, parent, e->d_name);
        if (bq_dir_open(f.path, true, &f.fd)) continue;
        if (fstat(f.fd, &st) == 0 && st.st_uid == geteuid() && flock(f.fd, LOCK_EX | LOCK_NB) == 0)
            bq_folder_remove(&f, patterns);
        else
            close(f.fd);
    }
    if (list) closedir(list);
}
