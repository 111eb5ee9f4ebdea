/* SPDX-License-Identifier: Apache-2.0 */
/* arch.h - the layout of a model's blocks: their sites, and the linears of each as a checkpoint stores them.
 *
 * All methods work on sites and on rows of their matrices.  So a checkpoint that stores q, k and v apart
 * (Llama) and one that stores them as one tensor (Phi-3) differ only in names.
 *
 * A block with experts is quantized in units, one after the other, so that only one of them is in memory: its
 * core, which is all but the experts; then each expert.  A block without experts is one unit. */
#ifndef BQ_ARCH_H
#define BQ_ARCH_H

#include "base/family.h"
#include "kernels/ops.h"

/* The most that a block has; and that a unit has. */
#define BQ_LAYOUT_SITES   (6 + 2 * BQ_EXPERTS_MAX)
#define BQ_LAYOUT_LINEARS (8 + 3 * BQ_EXPERTS_MAX)
#define BQ_SITES          6
#define BQ_ARCH_LINEARS   8
#define BQ_SITE_LINEARS   3

/* A linear as the checkpoint stores it: the unit that is quantized, exported and named in recipes. */
typedef struct {
    const char *name;        /* "q_proj": the key in recipes */
    char module[56];         /* "self_attn.q_proj": below model.layers.N. */
    int site;                /* the number of its site */
    int64_t row, rows, cols; /* rows [row, row + rows) of the site's matrix, all columns */
    bool bias;
} bq_linear;

/* Linears that read one input, and their stacked matrix (rows, cols).  Of arrays with an element for each
 * site the first arch->sites are used. */
typedef struct {
    bq_role role;
    int expert; /* its number; 0 of other roles */
    int64_t rows, cols;
    int64_t bias_row, bias_rows; /* of the linears with a bias; 0 rows: none has one */
    int first, linears;          /* the numbers of the linears: [first, first + linears) */
} bq_site;

/* What a layout is of.  A core is laid out as a dense block whose MLP is the shared one, if there is one: its
 * output is the residual stream before the experts are added.  An expert is an MLP alone: no attention, no
 * norm, no residual. */
typedef enum { BQ_UNIT_BLOCK, BQ_UNIT_CORE, BQ_UNIT_EXPERT } bq_unit_kind;

typedef struct {
    bq_model model; /* of an expert: with inter of its MLP, without heads and experts */
    bq_unit_kind kind;
    int expert;                     /* of a unit that is an expert: its number */
    char embed[64], final_norm[64]; /* names of tensors outside blocks; and bq_tensor_head */
    int experts;                    /* of a block with them, and of its core; else 0 */
    int sites, linears;
    bq_site site[BQ_LAYOUT_SITES]; /* in the order in which a forward comes to them */
    bq_linear linear[BQ_LAYOUT_LINEARS];
    const char *norm[BQ_NORMS];        /* modules; NULL: there is no such norm */
    int64_t gains[BQ_NORMS];           /* how many gains each has; 0: no norm */
    float embed_scale;                 /* what embeddings are multiplied by */
    float gain_of_zero;                /* gain - tensor: 1 where gains are 1 + the tensor, else 0 */
    const char *extra[BQ_EXTRAS];      /* names; NULL: there is none */
    int64_t extra_shape[BQ_EXTRAS][2]; /* rows 0: a vector */
    bq_router router;
    bq_act act;
    bq_attention attention; /* of a block with the window that the model has */
} bq_arch;

/* The layout of a model's blocks, by the table of its family: of those with experts, where it has any. */
void bq_arch_of(const bq_model *model, bq_arch *arch);
/* Where other blocks have none: the layout of these.  False: there are none. */
bool bq_arch_of_dense(const bq_model *model, bq_arch *arch);
/* The units of a block with experts: its core; expert number e. */
void bq_arch_of_core(const bq_model *model, bq_arch *arch);
void bq_arch_of_expert(const bq_model *model, int e, bq_arch *arch);
/* The number of a unit in its block: 0, and 1 + e of an expert.  Of linear i of a whole block's layout: its
 * unit, and its number there. */
static inline int bq_arch_unit(const bq_arch *arch) {
    return arch->kind == BQ_UNIT_EXPERT ? 1 + arch->expert : 0;
}
int bq_arch_unit_of(const bq_arch *block, int i, int *at);

/* The first site of a role, which must be there; is it there; the word for a role: "gate_up". */
int bq_arch_site(const bq_arch *arch, bq_role role);
bool bq_arch_has(const bq_arch *arch, bq_role role);
const char *bq_role_name(bq_role role);
/* The first site behind attention: the first of the MLP, or arch->sites.  The width of the dense or shared
 * MLP, or of the expert; 0: there is none. */
int bq_arch_mlp(const bq_arch *arch);
int64_t bq_arch_inter(const bq_arch *arch);
/* Columns of the outputs of all heads; 0 of an expert. */
int64_t bq_arch_heads(const bq_arch *arch);
/* Is a role a part of attention, not of the MLP?  Does its output go to the residual stream? */
static inline bool bq_role_attends(bq_role role) {
    return role == BQ_QKV || role == BQ_Q_B || role == BQ_KV_B || role == BQ_O;
}
static inline bool bq_role_of_expert(bq_role role) {
    return role == BQ_EXPERT_GATE_UP || role == BQ_EXPERT_DOWN;
}
static inline bool bq_role_writes(bq_role role) {
    return role == BQ_O || role == BQ_DOWN || role == BQ_EXPERT_DOWN;
}

extern const char bq_tensor_head[];
/* What may precede "embed_tokens.weight" in a checkpoint, the most usual first; NULL behind the last. */
const char *bq_arch_prefix(int i);
/* The name of a tensor in a block, "<prefix>.layers.<block>.<module>.<what>", into n bytes at out. */
void bq_arch_tensor(const bq_arch *arch, char *out, size_t n, int block, const char *module,
                    const char *what);

/* What a tensor of a checkpoint is, by its name; names are parsed here alone. */
typedef enum {
    BQ_TENSOR_OTHER, /* none that the model has */
    BQ_TENSOR_EMBED,
    BQ_TENSOR_NORM, /* before the head */
    BQ_TENSOR_HEAD,
    BQ_TENSOR_BLOCK_NORM,
    BQ_TENSOR_EXTRA,
    BQ_TENSOR_WEIGHT,
    BQ_TENSOR_BIAS
} bq_tensor_kind;

typedef struct {
    bq_tensor_kind kind;
    int block; /* of the last four, else -1 */
    int at;    /* which linear, which of the norms or extras */
} bq_tensor_id;

bq_tensor_id bq_arch_id(const bq_arch *arch, const char *tensor);
/* The same where blocks without experts have another layout: `at` counts in that of the tensor's block.
 * dense has no linears where all blocks are alike. */
bq_tensor_id bq_arch_id_in(const bq_arch *arch, const bq_arch *dense, const char *tensor);

/* How many weights the matrices of a block have together. */
int64_t bq_arch_weights(const bq_arch *arch);

#endif
