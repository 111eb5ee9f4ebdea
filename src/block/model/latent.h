/* SPDX-License-Identifier: Apache-2.0 */
/* latent.h - attention whose queries, keys and values are computed from short vectors (multi-head latent
 * attention, DeepSeek-V2, 2024): what block.c and block_backward.c call where the model has a kv_rank.
 *
 *   q_a, kv_a, r = a Wqkv^T       (T, rq), (T, rc), (T, hr): r is one key for all heads, with RoPE
 *   q = norm(q_a) Wq_b^T          of each head: hn channels without RoPE, then hr with it
 *   k, v = norm(kv_a) Wkv_b^T     of each head: hn channels without RoPE, then hv of v
 *   o = attention(q, k | r, v)
 *
 * Without rq, q takes the place of q_a in the first line.  RoPE leaves turned channels in their places, also
 * where it turns neighbours; queries and keys agree, so scores are those of transformers, which sorts them.
 * Buffers are bq_work.latent.  All calls are local. */
#ifndef BQ_LATENT_H
#define BQ_LATENT_H

#include "block/model/block.h"

/* The input of q_b or of kv_b from k->a, or where q_b has come before from k->qkv. */
void bq_latent_input(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_role role);
/* k->o and k->lse from these inputs and k->qkv. */
void bq_latent_attend(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k);

/* From k->dout, the gradient of k->o: dw of q_b and kv_b, and k->dqkv.  The inputs of both and k->latent.kv
 * are overwritten. */
void bq_latent_backward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, const bq_mat *dw);

#endif
