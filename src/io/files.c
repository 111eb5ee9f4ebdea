/* SPDX-License-Identifier: Apache-2.0 */
#include "io/files.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/meter.h"
#include "io/state/raw.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

char *bq_text_copy(const char *text) {
    char *copy = strdup(text);
    BQ_CHECK(copy, "no memory for a text");
    return copy;
}

void *bq_grow(void *array, int count, int *room, size_t size) {
    if (count < *room) return array;
    *room = *room ? 2 * *room : 64;
    array = realloc(array, (size_t)*room * size);
    BQ_CHECK(array, "no memory for a list of %d elements", *room);
    return array;
}

void bq_path_join(char *out, size_t n, const char *dir, const char *name) {
    size_t d = strlen(dir);
    const char *slash = d && dir[d - 1] != '/' ? "/" : "";
    int need = name[0] == '/' ? snprintf(out, n, "%s", name) : snprintf(out, n, "%s%s%s", dir, slash, name);
    BQ_CHECK(need >= 0 && (size_t)need < n, "path too long: %.200s... / %.200s", dir, name);
}

bool bq_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

int64_t bq_file_size(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

/* Is it a pipe without a name?  Somebody made that to be read, so it is right to wait for its writer. */
static bool is_pipe(int fd) {
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type == PIPEFS_MAGIC && fcntl(fd, F_SETFL, 0) == 0;
}

/* Read to the end; fstat's size does not help, as pipes and /proc have none. */
static int read_all(int fd, size_t max_bytes, char **data, size_t *bytes) {
    size_t room = 0, have = 0;
    char *text = NULL;
    for (;;) {
        if (have + 1 >= room) {
            room = room ? 2 * room : 65536;
            char *more = realloc(text, room);
            BQ_CHECK(more, "no memory for a file of %zu bytes", room);
            text = more;
        }
        ssize_t got = read(fd, text + have, room - have - 1);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 || have + (size_t)got > max_bytes) {
            int err = got < 0 ? errno : EFBIG;
            free(text);
            return err;
        }
        if (got == 0) break;
        have += (size_t)got;
    }
    text[have] = 0;
    *data = text, *bytes = have;
    return 0;
}

int bq_file_read(const char *path, size_t max_bytes, char **data, size_t *bytes) {
    *data = NULL, *bytes = 0;
    struct stat st;
    int fd, err = bq_file_open_any(path, O_RDONLY, &fd, &st);
    if (err) return err;
    bool reads = S_ISREG(st.st_mode) || is_pipe(fd);
    err = bq_fault("file_read") ? EIO : reads ? read_all(fd, max_bytes, data, bytes) : BQ_NOT_FILE;
    close(fd);
    return err;
}

int bq_file_put(int fd, const void *data, size_t bytes) {
    const char *from = data;
    double start = bq_seconds();
    int error = 0;
    while (bytes && !error) {
        ssize_t put = write(fd, from, bytes);
        if (put < 0 && errno != EINTR) error = errno;
        if (put < 0) continue;
        from += put, bytes -= (size_t)put;
    }
    bq_spent.files += bq_seconds() - start, bq_spent.written += from - (const char *)data;
    return error;
}

/* The number of the process whose temporary file this entry is, for the file called name (NULL: any); 0 for
 * other entries. */
static long writer_of(const char *entry, const char *name) {
    const char *end = strrchr(entry, '.'), *dot = end;
    if (!end || strcmp(end, ".tmp")) return 0;
    while (dot > entry && dot[-1] >= '0' && dot[-1] <= '9') dot--;
    if (dot == end || *dot == '0' || dot < entry + 2 || dot[-1] != '.') return 0;
    size_t n = (size_t)(dot - 1 - entry);
    return !name || (strlen(name) == n && strncmp(entry, name, n) == 0) ? strtol(dot, NULL, 10) : 0;
}

static bool lives(long pid) {
    char proc[40];
    snprintf(proc, sizeof proc, "/proc/%ld", pid);
    return pid != getpid() && bq_file_exists(proc);
}

/* Remove the temporary files of dead processes for the file called name; name NULL: all temporary files. */
static void remove_temps(const char *dir, const char *name) {
    char path[2 * BQ_PATH];
    DIR *list = opendir(dir);
    for (struct dirent *e; list && (e = readdir(list));) {
        long pid = writer_of(e->d_name, name);
        if (pid == 0 || (name && lives(pid))) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        unlink(path);
    }
    if (list) closedir(list);
}

void bq_temps_remove(const char *dir) { remove_temps(dir, NULL); }

/* The directory of a path, with '/' at its end; the name in it. */
static const char *split(const char *path, char dir[BQ_PATH]) {
    const char *slash = strrchr(path, '/');
    int n = slash ? (int)(slash - path) + 1 : 0;
    BQ_CHECK(n < BQ_PATH, "path too long: %.200s...", path);
    snprintf(dir, BQ_PATH, "%.*s", n ? n : 2, n ? path : "./");
    return path + n;
}

void bq_temp_name(char *out, size_t n, const char *path) {
    char dir[BQ_PATH];
    int need = snprintf(out, n, "%s.%ld.tmp", path, (long)getpid());
    BQ_CHECK(need >= 0 && (size_t)need < n, "path too long: %.200s...", path);
    const char *name = split(path, dir);
    remove_temps(dir, name);
}

static int put_and_sync(const char *temp, const void *data, size_t bytes) {
    int fd, err = bq_file_create(temp, &fd);
    if (err) return err;
    err = bq_fault("file_write") ? ENOSPC : bq_file_put(fd, data, bytes);
    if (!err) err = bq_fault("file_sync") ? EIO : bq_raw_sync(fd);
    if (close(fd) && !err) err = errno;
    return err;
}

int bq_file_write_atomic(const char *path, const void *data, size_t bytes) {
    char temp[BQ_PATH + 32];
    bq_temp_name(temp, sizeof temp, path);
    int err = put_and_sync(temp, data, bytes);
    if (!err) err = bq_file_rename(temp, path);
    if (err) unlink(temp);
    return err;
}

int bq_file_rename(const char *temp, const char *path) {
    int fd, err = bq_file_open_own(temp, O_RDONLY, &fd);
    if (err) return err < 0 ? EEXIST : err;
    err = bq_raw_sync(fd);
    close(fd);
    if (err) return err;
    if (bq_fault("file_rename")) return ENOSPC;
    struct stat st; /* root's rename would replace even a device */
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) return EEXIST;
    if (rename(temp, path)) return errno;
    char dir[BQ_PATH];
    split(path, dir);
    return bq_dir_sync(dir);
}

static int make_one(const char *path) {
    struct stat st;
    if (bq_fault("dir_make")) return EACCES;
    if (mkdir(path, 0777) == 0) return 0;
    int err = errno;
    if (stat(path, &st) == 0) return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    return err;
}

int bq_dir_make(const char *path) {
    char part[BQ_PATH];
    bq_path_join(part, sizeof part, "", path);
    for (char *p = part + 1; part[0] && *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        int err = make_one(part);
        if (err) return err;
        *p = '/';
    }
    return make_one(part);
}

int bq_dir_sync(const char *path) {
    int fd, err = bq_dir_open(path, false, &fd);
    if (err) return err;
    err = bq_fault("dir_sync") ? EIO : bq_raw_sync(fd);
    close(fd);
    return err == EINVAL || err == ENOTSUP ? 0 : err;
}

int bq_file_append(const char *path, const void *data, size_t bytes) {
    int fd, error = bq_file_open_own(path, O_WRONLY | O_APPEND | O_CREAT, &fd);
    if (error) return error;
    error = bq_fault("file_append") ? ENOSPC : bq_file_put(fd, data, bytes);
    if (close(fd) && !error) error = errno;
    return error;
}
