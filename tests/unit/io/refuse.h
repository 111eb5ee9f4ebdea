/* SPDX-License-Identifier: Apache-2.0 */
/* refuse.h - "this input is refused, once, for this reason": what the tests of readers share. */
#ifndef REFUSE_H
#define REFUSE_H

#include "temp.h"

#include "base/die.h"
#include "io/files.h"
#include "io/in/config.h"

/* Run an expression that returns a code; it must be BQ_DATA after one line that has the needle in it. */
#define assert_refused(call, needle)                                                                         \
    do {                                                                                                     \
        char refused_text[4096];                                                                             \
        int refused_fd = captured_fd(0), refused_rc = (call);                                                \
        captured_text(refused_fd, refused_text, sizeof refused_text);                                        \
        if (refused_rc != BQ_DATA) fail_msg("%s: returned %d, not BQ_DATA; %s", #call, refused_rc, needle);  \
        assert_one_line(refused_text, needle);                                                               \
    } while (0)

static inline void text_save(const char *path, const char *text) { file_save(path, text, strlen(text)); }

/* The configuration of the model at path, which has weights, too. */
static inline int config_read(const char *path, bq_model *m) {
    bq_weights *w;
    int rc = bq_weights_open(&w, path);
    if (!rc) rc = bq_config_of(w, m);
    bq_weights_close(w);
    return rc;
}

/* A safetensors file: its header as text and `data` bytes of value 0. */
static inline void st_save(const char *path, const char *header, size_t data) {
    size_t n = strlen(header);
    char *all = calloc(1, 8 + n + data);
    assert_non_null(all);
    uint64_t length = n;
    memcpy(all, &length, 8);
    memcpy(all + 8, header, n);
    file_save(path, all, 8 + n + data);
    free(all);
}

/* A folder with this config.json and this header, and `bytes` bytes of data behind it. */
static inline const char *model_folder(const char *config, const char *header, const void *data,
                                       size_t bytes) {
    const char *dir = temp_path("model"), *file = temp_path("model/model.safetensors");
    uint64_t n = strlen(header);
    char *all = malloc(8 + n + bytes);
    assert_non_null(all);
    assert_int_equal(bq_dir_make(dir), 0);
    text_save(temp_path("model/config.json"), config);
    memcpy(all, &n, 8);
    memcpy(all + 8, header, n);
    memcpy(all + 8 + n, data, bytes);
    file_save(file, all, 8 + n + bytes);
    free(all);
    return dir;
}

#endif
