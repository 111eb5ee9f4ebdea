/* SPDX-License-Identifier: Apache-2.0 */
/* flip.h - bits of a file turned, one at a time. */
#ifndef FLIP_H
#define FLIP_H

#include "unit/io/temp.h"

#include <fcntl.h>

/* look at the file with one bit of its first bytes turned: with each, or one in `step`.  look returns the
 * reason for a refusal, or NULL.  Refusals have a reason, and there are some; afterwards the file is as
 * before. */
static inline void flip_bits(const char *path, size_t bytes, size_t step,
                             const char *(*look)(const char *path)) {
    size_t refused = 0;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (size_t bit = 0; bit < 8 * bytes; bit += step) {
        unsigned char was, now;
        assert_int_equal(pread(fd, &was, 1, (off_t)(bit / 8)), 1);
        now = was ^ (unsigned char)(1 << bit % 8);
        assert_int_equal(pwrite(fd, &now, 1, (off_t)(bit / 8)), 1);
        const char *why = look(path);
        if (why && !why[0]) fail_msg("bit %zu: refused without a reason", bit);
        refused += why != NULL;
        assert_int_equal(pwrite(fd, &was, 1, (off_t)(bit / 8)), 1);
    }
    close(fd);
    assert_true(refused > bytes / 4 / step);
    assert_null(look(path));
}

#endif
