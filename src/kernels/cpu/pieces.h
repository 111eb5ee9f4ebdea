/* SPDX-License-Identifier: Apache-2.0 */
/* pieces.h - arithmetic for cutting n items into pieces. */
#ifndef BQ_PIECES_H
#define BQ_PIECES_H

#include <stdint.h>

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t pieces(int64_t n, int64_t length) { return (n + length - 1) / length; }

#endif
