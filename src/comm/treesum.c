#include "comm/treesum.h"

#include "base/die.h"

int bq_treesum_levels(int64_t parts) {
    int levels = 1;
    while ((int64_t)1 << levels <= parts) levels++;
    return levels;
}

void bq_treesum_open(bq_treesum *sum, bq_dev *dev, int64_t parts, bq_mat first) {
    *sum = (bq_treesum){.dev = dev, .levels = bq_treesum_levels(parts)};
    BQ_CHECK(sum->levels < BQ_TREE_LEVELS, "a sum of %ld parts", (long)parts);
    sum->level[0] = first;
    for (int k = 1; k < sum->levels; k++)
        sum->level[k] = bq_arena_push(&dev->mem, first.rows, first.cols, BQ_F32);
}

static int lowest_free(const bq_treesum *sum) {
    int k = 0;
    while (k < sum->levels && sum->full[k]) k++;
    BQ_CHECK(k < sum->levels, "a tree sum got more parts than it was opened for");
    return k;
}

bq_mat bq_treesum_next(bq_treesum *sum) { return sum->level[lowest_free(sum)]; }

void bq_treesum_add(bq_treesum *sum) {
    int at = lowest_free(sum);
    bq_mat in = sum->level[at];
    for (int k = 0; k < at; k++) { /* the earlier parts are the left operand; addition commutes bitwise */
        sum->dev->op->add(sum->dev, sum->level[k], in);
        sum->full[k] = false;
    }
    sum->full[at] = true;
}

bq_mat bq_treesum_end(bq_treesum *sum) {
    int first = 0;
    while (first < sum->levels && !sum->full[first]) first++;
    BQ_CHECK(first < sum->levels, "a tree sum without parts");
    bq_mat out = sum->level[first];
    for (int k = first + 1; k < sum->levels; k++) {
        if (!sum->full[k]) continue;
        sum->dev->op->add(sum->dev, out, sum->level[k]);
        out = sum->level[k];
    }
    for (int k = 0; k < sum->levels; k++) sum->full[k] = false;
    return out;
}
