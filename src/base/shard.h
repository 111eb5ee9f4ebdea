/* shard.h - pure arithmetic of shares: who has which items. */
#ifndef BQ_SHARD_H
#define BQ_SHARD_H

#include <stdint.h>

typedef struct {
    int64_t first, count, total;
} bq_shard;

/* Share `part` of `parts` of [0, total): contiguous, sizes differ by at most one, larger ones first. */
static inline bq_shard bq_shard_of(int64_t total, int part, int parts) {
    int64_t base = total / parts, more = total % parts;
    int64_t first = part * base + (part < more ? part : more);
    return (bq_shard){first, base + (part < more), total};
}

#endif
