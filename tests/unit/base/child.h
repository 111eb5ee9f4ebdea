/* SPDX-License-Identifier: Apache-2.0 */
/* child.h - run a function in a child process: what it printed on standard error, and how it ended. */
#ifndef CHILD_H
#define CHILD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

typedef struct {
    int code; /* exit code; -1: a signal */
    char text[4096];
} child_end;

/* The child exits with what work returns. */
static inline child_end in_child(int (*work)(void)) {
    child_end end = {.code = -1};
    int pipe_ends[2], status = 0;
    fflush(NULL);
    if (pipe(pipe_ends) != 0) abort();
    pid_t child = fork();
    if (child < 0) abort();
    if (child == 0) {
        dup2(pipe_ends[1], STDERR_FILENO);
        close(pipe_ends[0]), close(pipe_ends[1]);
        _exit(work());
    }
    close(pipe_ends[1]);
    size_t used = 0;
    for (ssize_t n; (n = read(pipe_ends[0], end.text + used, sizeof end.text - 1 - used)) > 0;)
        used += (size_t)n;
    close(pipe_ends[0]);
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) end.code = WEXITSTATUS(status);
    return end;
}

/* It said exactly one line, "bq: ...", that holds part, and ended with code. */
static inline bool one_line(child_end end, int code, const char *part) {
    char *newline = strchr(end.text, '\n');
    bool good = end.code == code && strncmp(end.text, "bq: ", 4) == 0 && newline && newline[1] == 0 &&
                strstr(end.text, part);
    if (!good) print_error("code %d: %s\n", end.code, end.text);
    return good;
}

#endif
