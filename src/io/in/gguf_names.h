/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_names.h - GGUF's names of a model's tensors, and what its converter did to their values.
 *
 * Checkpoint names are those of Hugging Face: model.layers.3.self_attn.q_proj.weight is
 * blk.3.attn_q.weight.  A name that is not in the table of the architecture is unknown: its tensor means
 * something that blockq does not compute, so a caller should refuse the file. */
#ifndef BQ_GGUF_NAMES_H
#define BQ_GGUF_NAMES_H

#include "io/in/gguf.h"

/* What the converter did, and bq_gguf_read_as undoes. */
typedef enum {
    BQ_GGUF_SAME,
    BQ_GGUF_PAIRED,  /* channels i and i + hd/2 of a head, which rotate together, became 2i and 2i + 1 */
    BQ_GGUF_PLUS_ONE /* 1 was added */
} bq_gguf_change;

typedef struct {
    char name[256];
    int64_t expert; /* the tensor stacks all experts, and this is one of them; -1 of others */
    bq_gguf_change change;
} bq_gguf_name;

typedef enum {
    BQ_GGUF_UNKNOWN,
    BQ_GGUF_WEIGHT,  /* a tensor of the checkpoint */
    BQ_GGUF_EXPERTS, /* the tensors of all experts, which the checkpoint has one by one */
    BQ_GGUF_BESIDE   /* not in the checkpoint: config.json has its values, or they follow from it */
} bq_gguf_kind;

/* The number of a general.architecture, -1 where there is no table for it; its text, NULL behind the last. */
int bq_gguf_arch_find(const char *architecture);
const char *bq_gguf_arch_at(int arch);

/* The GGUF tensor that has the tensor of this checkpoint name.  False: unknown. */
bool bq_gguf_name_of(int arch, const char *checkpoint, bq_gguf_name *gguf);
/* The other way.  expert: which one, where the answer is BQ_GGUF_EXPERTS; others ignore it.  The name is set
 * for BQ_GGUF_WEIGHT and BQ_GGUF_EXPERTS. */
bq_gguf_kind bq_gguf_checkpoint_name(int arch, const char *gguf, int64_t expert, bq_gguf_name *checkpoint);

/* Where the converter put row `row` of q or k (or channel of a bias); head_dim is even. */
int64_t bq_gguf_paired(int64_t row, int64_t head_dim);

/* Rows [first, first + rows) of a tensor as the checkpoint has it, as bq_gguf_read.
 *   t, how     the tensor, and what bq_gguf_name_of said of it
 *   head_dim   even; it divides what is paired; others ignore it */
void bq_gguf_read_as(const bq_gguf *g, const bq_tensor *t, const bq_gguf_name *how, int64_t head_dim,
                     int64_t first, int64_t rows, bq_mat to);

#endif
