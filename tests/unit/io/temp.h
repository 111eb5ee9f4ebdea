/* SPDX-License-Identifier: Apache-2.0 */
/* temp.h - what tests of files share: a folder of their own, files as bytes, children that may die, full
 * disks. */
#ifndef TEMP_H
#define TEMP_H

#include <ftw.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char temp_dir[256];

static inline int temp_remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk) {
    (void)st, (void)kind, (void)walk;
    return remove(path);
}

/* cmocka group setup and teardown. */
static inline int temp_make(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(temp_dir, sizeof temp_dir, "%s/blockq-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(temp_dir) ? 0 : -1;
}

static inline int temp_remove(void **state) {
    (void)state;
    return nftw(temp_dir, temp_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* "<temp>/name"; eight of them stay valid. */
static inline const char *temp_path(const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", temp_dir, name);
    return path;
}

static inline char *file_load(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is not there", path);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    *bytes = (size_t)st.st_size;
    char *data = malloc(*bytes + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *bytes, f), *bytes);
    fclose(f);
    return data;
}

static inline void file_save(const char *path, const void *data, size_t bytes) {
    FILE *f = fopen(path, "wb");
    if (!f) fail_msg("%s cannot be made", path);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static inline bool file_there(const char *path) { return access(path, F_OK) == 0; }

/* Is any temporary of path there? */
static inline bool temporary_there(const char *path) {
    char pattern[700];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s.*tmp", path);
    bool any = glob(pattern, 0, NULL, &found) == 0;
    globfree(&found);
    return any;
}

static inline void assert_same_file(const char *a, const char *b) {
    size_t na, nb;
    char *da = file_load(a, &na), *db = file_load(b, &nb);
    assert_int_equal(na, nb);
    assert_memory_equal(da, db, na);
    free(da);
    free(db);
}

/* Run this program again as `program what path` with extra in the environment ("NAME=value" or NULL), so that
 * static state starts fresh and death is contained.  Its standard error goes to err.  Returns the exit code,
 * or -signal. */
static inline int child_run(const char *what, const char *path, const char *extra, char *err, size_t size) {
    int ends[2], status;
    size_t n = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        if (extra) putenv((char *)(uintptr_t)extra);
        execl("/proc/self/exe", "test", what, path, (char *)NULL);
        _exit(126);
    }
    close(ends[1]);
    for (ssize_t got; n + 1 < size && (got = read(ends[0], err + n, size - 1 - n)) > 0;) n += (size_t)got;
    err[n] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* One line, ours, with this in it. */
static inline void assert_one_line(const char *err, const char *needle) {
    const char *end = strchr(err, '\n');
    if (strncmp(err, "bq: ", 4) || !end || end[1] || !strstr(err, needle))
        fail_msg("expected one line with '%s', got: %s", needle, err);
}

/* What a function prints to standard error while it runs. */
static inline int captured_fd(int restore) {
    static int saved = -1;
    fflush(stderr);
    if (restore) {
        dup2(saved, 2);
        close(saved);
        return 0;
    }
    FILE *f = tmpfile();
    assert_non_null(f);
    int fd = dup(fileno(f));
    fclose(f);
    saved = dup(2);
    dup2(fd, 2);
    return fd;
}

static inline void captured_text(int fd, char *text, size_t size) {
    captured_fd(1);
    ssize_t n = pread(fd, text, size - 1, 0);
    text[n > 0 ? n : 0] = 0;
    close(fd);
}

/* How often a file is opened from here on: the descriptor that count_opens reads and closes.  Reads are
 * watched to keep two opens apart, as equal events become one. */
static inline int watch_opens(const char *path) {
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    assert_true(fd >= 0 && inotify_add_watch(fd, path, IN_OPEN | IN_ACCESS | IN_CLOSE) >= 0);
    return fd;
}

static inline int count_opens(int watch) {
    struct inotify_event event; /* of a file, not of a folder: without a name */
    int n = 0;
    while (read(watch, &event, sizeof event) == sizeof event) n += (event.mask & IN_OPEN) != 0;
    close(watch);
    return n;
}

/* A small file system at a folder; false (and nothing done) where we may not mount. */
static inline bool small_disk(const char *folder, const char *options) {
    mkdir(folder, 0777);
    return mount("tmpfs", folder, "tmpfs", 0, options) == 0;
}

#endif
