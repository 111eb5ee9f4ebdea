/* SPDX-License-Identifier: Apache-2.0 */
/* captured.h - what a call printed to a stream, as text. */
#ifndef BQ_TEST_CAPTURED_H
#define BQ_TEST_CAPTURED_H

#include <stdio.h>
#include <unistd.h>

typedef struct {
    FILE *stream, *file;
    int saved;
    char text[65536];
} captured;

static inline void capture_begin(captured *c, FILE *stream) {
    fflush(stream);
    c->stream = stream;
    c->file = tmpfile();
    c->saved = dup(fileno(stream));
    dup2(fileno(c->file), fileno(stream));
}

static inline const char *capture_end(captured *c) {
    fflush(c->stream);
    dup2(c->saved, fileno(c->stream));
    close(c->saved);
    rewind(c->file);
    c->text[fread(c->text, 1, sizeof c->text - 1, c->file)] = 0;
    fclose(c->file);
    return c->text;
}

#endif
