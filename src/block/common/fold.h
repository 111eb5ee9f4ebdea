/* SPDX-License-Identifier: Apache-2.0 */
/* fold.h - fusions: how scales of a site's input channels are folded into what computes its input.
 *
 * x / s and W diag(s) in the place of x and W leave x W^T as it is (SmoothQuant: Xiao et al., 2023).  The
 * division costs nothing where x is linear in a parameter of each channel.  That is so for each site:
 *   qkv, gate_up   the weight of the norm before it
 *   o              the rows of v: attention adds up tokens, but not channels
 *   down           the rows of up: silu(g) u is linear in u
 * So each site has one fusion, but
 *   qkv, gate_up   of models that have no norm there
 *   gate_up        of the shared MLP, where experts and their router read the norm, too
 *   down           where u is clamped (gpt-oss)
 *   q_b, kv_b, o   of latent attention, since checkpoints keep only the norms before attention and the MLP,
 *                  and rows of v stand between those of k */
#ifndef BQ_FOLD_H
#define BQ_FOLD_H

#include "block/passes/pass.h"

/* What computes the input of a site: norm number `norm`; or, where that is -1, rows [row, row + rows) of
 * site `producer`.  `repeat` heads in a row, of `head` channels each, read the same `head` rows (grouped
 * queries); without grouped queries repeat is 1. */
typedef struct {
    int norm, producer;
    int64_t row, rows, head, repeat;
} bq_fusion;

bq_fusion bq_fusion_of(const bq_arch *arch, int site);
static inline bool bq_fusion_there(bq_fusion f) { return f.norm >= 0 || f.producer >= 0; }

/* A row can have only one scale: in s (1, columns of the site) the channels that share a producer row get
 * the largest of their values.  Without grouped queries s does not change.  Local. */
void bq_fold_group(bq_dev *dev, const bq_arch *arch, int site, bq_mat s);

/* Fold s > 0, grouped as above, into the block: W = W diag(s), and the norm's weight, or the producer's rows
 * and their bias, are divided by s.  Sets blk->folded.  Local.  bq_fold_need: the arena bytes it takes. */
void bq_fold_apply(bq_dev *dev, bq_block *blk, int site, bq_mat s);
size_t bq_fold_need(const bq_arch *arch);

#endif
