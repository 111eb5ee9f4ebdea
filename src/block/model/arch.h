/* arch.h - the layout of a model's blocks: which linears a checkpoint has, and which rows of the four
 * matrices of base/family.h each of them is.
 *
 * All methods work on rows of matrices.  So a checkpoint that stores q, k and v apart (Llama) and one that
 * stores them as one tensor (Phi-3) differ only in names. */
#ifndef BQ_ARCH_H
#define BQ_ARCH_H

#include "base/family.h"
#include "kernels/ops.h"

#define BQ_ARCH_LINEARS 8

/* A linear as the checkpoint stores it: the unit that is quantized, exported and named in recipes. */
typedef struct {
    const char *name;        /* "q_proj": the key in recipes */
    const char *module;      /* "self_attn.q_proj": below model.layers.N. */
    int mat;                 /* BQ_QKV ... BQ_DOWN: the matrix that it is a part of */
    int64_t row, rows, cols; /* rows [row, row + rows) of the matrix, all columns */
    bool bias;
} bq_linear;

typedef struct {
    bq_model model;
    int64_t rows[BQ_MATS], cols[BQ_MATS]; /* of the four matrices */
    bool bias[BQ_MATS];                   /* has a linear of the matrix a bias? */
    int linears;
    bq_linear linear[BQ_ARCH_LINEARS];
    const char *norm[2]; /* modules of the norms before attention and before the MLP */
    bq_attention attention;
} bq_arch;

/* The layout of a model's blocks, by the table of its family. */
void bq_arch_of(const bq_model *model, bq_arch *arch);

/* Names of the tensors outside blocks. */
extern const char bq_tensor_embed[], bq_tensor_norm[], bq_tensor_head[];
/* The name of a tensor in a block, "model.layers.<block>.<module>.<what>", into n bytes at out. */
void bq_arch_tensor(char *out, size_t n, int block, const char *module, const char *what);

/* What a tensor of a checkpoint is, by its name; names are parsed here alone. */
typedef enum {
    BQ_TENSOR_OTHER, /* none that the model has */
    BQ_TENSOR_EMBED,
    BQ_TENSOR_NORM, /* before the head */
    BQ_TENSOR_HEAD,
    BQ_TENSOR_BLOCK_NORM,
    BQ_TENSOR_WEIGHT,
    BQ_TENSOR_BIAS
} bq_tensor_kind;

typedef struct {
    bq_tensor_kind kind;
    int block; /* of the last three, else -1 */
    int at;    /* which linear, or which of the block's norms */
} bq_tensor_id;

bq_tensor_id bq_arch_id(const bq_arch *arch, const char *tensor);

/* How many weights the four matrices of a block have together. */
int64_t bq_arch_weights(const bq_arch *arch);

#endif
