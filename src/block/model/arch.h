/* arch.h - a model's blocks: the linears that a checkpoint has, and where they lie in the four matrices of
 * base/family.h.
 *
 * All methods work on rows, so a checkpoint that stores q, k, v apart (Llama) and one that stores them fused
 * (Phi-3) differ in names alone. */
#ifndef BQ_ARCH_H
#define BQ_ARCH_H

#include "base/family.h"
#include "kernels/ops.h"

#define BQ_ARCH_LINEARS 8

/* One linear as the checkpoint stores it: the unit that is quantized, exported, and named in recipes. */
typedef struct {
    const char *name;   /* "q_proj": the recipe's key */
    const char *module; /* "self_attn.q_proj": below model.layers.N. */
    int mat;            /* in which of the four matrices */
    int64_t row, rows, cols;
    bool bias;
} bq_linear;

typedef struct {
    bq_model model;
    int64_t rows[BQ_MATS], cols[BQ_MATS];
    bool bias[BQ_MATS];
    int linears;
    bq_linear linear[BQ_ARCH_LINEARS];
    const char *norm[2]; /* modules of the two norms */
    bq_attention attention;
} bq_arch;

void bq_arch_of(const bq_model *model, bq_arch *arch);

/* Names of whole-model tensors, and of a block's: "model.layers.<block>.<module>.<what>". */
extern const char bq_tensor_embed[], bq_tensor_norm[], bq_tensor_head[];
void bq_arch_tensor(char *out, size_t n, int block, const char *module, const char *what);

/* The linear that a checkpoint tensor ("model.layers.3.mlp.up_proj.weight") is the weight of; false when
 * none. */
bool bq_arch_find(const bq_arch *arch, const char *tensor, int *block, int *linear);

/* Weights of one block's matrices, and of the largest of them. */
int64_t bq_arch_weights(const bq_arch *arch);

#endif
