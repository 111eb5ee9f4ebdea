/* SPDX-License-Identifier: Apache-2.0 */
/* ops.h - the ops table: everything that blockq computes on a device.  Read this first, then ops.def: the ops
 * and what each of them promises.
 *
 * A backend is one instance of this table.  `cpu` has every op and defines its result.  In an op of class
 * BITWISE another backend must give the same bits; in an op of class NEAR its normalized mean squared error,
 * NMSE = sum (result - cpu)^2 / sum cpu^2, is at most 1e-10.
 *
 * Matrices are views (base/mat.h) of the device's memory, f32 unless stated; ld may exceed cols.  Letters:
 *   T       tokens of one sample            nh, nkv   query heads, key-value heads
 *   H, I    hidden size, width of the MLP   hd        size of a head
 *   V       vocabulary                      K         columns of a linear
 *   rne     round to nearest, ties to even  w_hat     dequantized weights
 *
 * An output must not share memory with an input unless the op says so.  Ops are asynchronous but run in the
 * order of their calls; what they write on the host is there after `wait`.  Scratch is pushed to the device's
 * arena and taken back before the op returns (bq_op_scratch says how much).  No result depends on the number
 * of threads.  A wrong shape is a bug and ends the job (want.h). */
#ifndef BQ_OPS_H
#define BQ_OPS_H

#include "base/arena.h"
#include "base/model.h"
#include "base/rng.h"
#include "kernels/grid.h"
#include "kernels/quadratic.h"
#include "kernels/refine.h"
#include "kernels/rounding.h"
#include "kernels/route.h"
#include "kernels/smooth.h"
#include "kernels/tuned.h"
#include "kernels/sparse.h"

typedef struct bq_ops bq_ops;

/* How products of floats are computed, the most exact way first.  Sums are always in f32. */
typedef enum {
    BQ_COMPUTE_F32,
    BQ_COMPUTE_FP16X2, /* an operand as two terms of fp16: as exact as a chain of FP32 FMAs, NMSE 4e-13 */
    BQ_COMPUTE_BF16X3, /* three products of bf16: an error of 2^-18 in a product; NMSE 5e-11 in a sum */
    BQ_COMPUTE_TF32,   /* operands rounded to 10 bits behind the point: NMSE about 5e-8 */
    BQ_COMPUTE_BF16,   /* operands rounded to bf16, to nearest even: NMSE about 5e-6 */
    BQ_COMPUTES
} bq_compute;

typedef struct {
    const bq_ops *op;
    unsigned computes;  /* bit c: the device can compute in way c; F32 is always set */
    bq_compute compute; /* how it computes now, one of `computes`: F32 when opened.  For gemm and
                           attention; gram may follow it, and the cpu's attention */
    void *impl;         /* the backend's state */
    bq_arena mem;       /* memory of the device; the plan decides its size */
    char name[96];      /* "cpu avx512+amx OpenBLAS 0.3.21 ...": part of the numerics class */
} bq_dev;

/* Open a device: "cpu"; "cuda" or "cuda:N" (GPU N modulo the number of GPUs); "auto" or "auto:N": cuda
 * where there is a GPU, else cpu.  threads: OpenMP threads, 0: as the environment says.  mem: bytes of
 * device memory to reserve for dev->mem.  Returns BQ_OK, or BQ_USAGE after a message when there is no
 * such backend or device. */
int bq_dev_open(bq_dev *dev, const char *backend, int threads, size_t mem);
void bq_dev_close(bq_dev *dev);

/* How the device computes products where `wanted` is asked for: that way, or the nearest more exact one that
 * it has.  And the name of a way, as in recipes. */
bq_compute bq_dev_compute(const bq_dev *dev, bq_compute wanted);
const char *bq_compute_name(bq_compute compute);

/* Unless NULL, called now and then while a device is waited for.  comm sets it. */
extern void (*bq_dev_waiting)(void);

/* act(g) = g * sigmoid(t).  silu: t = g.  gelu in its tanh form: t = 2 sqrt(2/pi) (g + 0.044715 g^3),
 * computed as g (BQ_GELU_1 + BQ_GELU_3 g^2).  silu_clamped (gpt-oss): t = 1.702 g, of g = min(g, limit); and
 * clamp(u, -limit, limit) + 1 takes the place of u. */
#define BQ_GELU_1      1.5957691216f
#define BQ_GELU_3      0.0713548163f
#define BQ_SILU_FACTOR 1.702f

/* How the op rope turns channels: bits. */
enum { BQ_TURN_INVERSE = 1 << 0, BQ_TURN_LAST = 1 << 1, BQ_TURN_PAIRS = 1 << 2 };

/* A search among grids whose ends shrink or grow: both ends times p = 1 - i / steps, for i = 0 ... count - 1,
 * then times 1 + i / steps, for i = 1 ... more. */
typedef enum { BQ_NORM_2, BQ_NORM_24 } bq_norm; /* the exponent of |error|: 2 or 2.4 */
typedef struct {
    int steps, count; /* 1 <= count <= steps */
    bq_norm norm;
    int more;
} bq_shrink;

/* The numbers of an attention. */
typedef struct {
    int64_t heads, kv_heads, head_dim;
    float scale;       /* factor of q k^T, usually head_dim^-1/2 */
    int64_t window;    /* query i sees key j if i - window < j <= i; 0: if j <= i */
    float cap;         /* unless 0, a score s becomes cap * tanh(s / cap) before the mask (Gemma-2) */
    int64_t value_dim; /* size of a head of v and out; 0: head_dim */
    bq_mat sinks;      /* unless data is NULL, (1, heads): a logit for each query head, which takes part in
                          the softmax as one more key without a value (gpt-oss) */
} bq_attention;

/* AdaScale's values for one matrix W (rows, cols), with the names that AIMET gives them.  hi, lo: the ends of
 * the initial grid, constants.  beta scales lo, gamma scales hi, s3 the row, s2 each element; these four are
 * logarithms, 0 at the start.  A matrix with groups is passed as rows * groups rows of the group's length. */
typedef struct {
    bq_mat w, hi, lo;           /* (rows, cols); (rows, 1): read only */
    bq_mat beta, gamma, s3, s2; /* trained: (rows, 1), but s2 (rows, cols) */
    bq_mat m_row, v_row;        /* Adam moments of beta, gamma, s3: (rows, 3) */
    bq_mat m_s2, v_s2;          /* Adam moments of s2: (rows, cols) */
} bq_adascale;

typedef struct {
    float lr_clip, lr_weight; /* learning rates of this step: of beta and gamma; of s2 and s3 */
    double beta1, beta2;      /* double, since torch computes 1 - beta from the decimal number */
    float eps;
    int64_t step; /* from 1, for the bias correction */
    float decay;  /* weight decay */
} bq_adam;

/* What a training changes of one matrix W (rows, cols), and how (tuned.h).  Groups as in bq_adascale. */
typedef struct {
    bq_tune form;
    bq_train_optimizer optimizer;
    bq_mat w;         /* (rows, cols): read only; of WEIGHTS and SCALES not read, `value` is in its place */
    bq_mat lo, hi;    /* (rows, 1): ends of the range, read only; of ROUNDING and CLIPPING */
    bq_mat low, high; /* trained: (rows, 1); not of WEIGHTS */
    bq_mat m_row, v_row; /* moments of low and high: (rows, 2), where the optimizer has them */
    bq_mat value;        /* trained: (rows, cols); not of CLIPPING */
    bq_mat m, v;         /* its moments: (rows, cols), where the optimizer has them */
} bq_tuned;

/* How a grid may be narrower than the range of the weights that it is fitted to. */
typedef enum {
    BQ_CLIP_MINMAX,  /* it is not: from the smallest to the largest weight */
    BQ_CLIP_MSE,     /* so that sum |error|^norm is least */
    BQ_CLIP_HESSIAN, /* so that sum h error^2 is least, h the diagonal of the inputs' Gram matrix */
} bq_clip;

/* The order in which GPTQ takes the columns. */
typedef enum {
    BQ_ORDER_NONE, /* from the first to the last */
    BQ_ORDER_ACT,  /* by the diagonal of the Gram matrix, largest first */
    BQ_ORDER_GAR,  /* whole groups by their largest diagonal, largest first; inside a group as ACT */
} bq_order;

/* GPTQ for some rows of a linear.  It works on panels of BQ_GPTQ_ROWS rows; a linear must be split by rows
 * at a multiple of that. */
#define BQ_GPTQ_ROWS 128
typedef struct {
    bq_mat w;           /* (rows, K) */
    bq_mat ut;          /* (K, K): U^T from `factor`, in processing order: row j multiplies the
                           errors that column j takes */
    bq_mat order;       /* (K, 1) i32, from `order` */
    bq_mat diag;        /* (K, 1), columns in the order of w; where it is 0 the weights count as 0 */
    bq_mat scale, zero; /* (rows * groups, 1): the grids; with `dynamic` an output, too */
    bool dynamic;       /* fit the grid of a group when its first column's turn comes */
    bq_clip clip;       /* how to fit it: range, range_mse with `ends`, or fit with weights diag */
    bq_shrink ends;
    bq_sparse sparse; /* TWO: the columns are in the order of w, and K is a multiple of 4, as are groups */
} bq_gptq;

/* Coordinate descent on rows that gptq has quantized (refine.h). */
typedef struct {
    bq_mat fold;        /* (rows, K): what codes are made of; changed in place */
    bq_mat target;      /* (rows, K): the weights before they were quantized */
    bq_mat h;           /* (K, K): the Gram matrix, symmetric, columns in the order of target */
    bq_mat order;       /* (K, 1) i32, from `order` */
    bq_mat diag;        /* (K, 1), as in bq_gptq: columns where it is 0 stay as they are */
    bq_mat scale, zero; /* (rows * groups, 1): the grids; with `refit` scales are changed in place */
    double damp;        /* times the mean of diag, added to the diagonal of h */
    int sweeps;
    bool refit; /* after each sweep, if bq_refine_refits */
} bq_refine;

/* A distance between two outputs: the sum of d^2, of |d|, or of sqrt|d|.  Quark calls the last one RMSE. */
typedef enum { BQ_DISTANCE_MSE, BQ_DISTANCE_MAE, BQ_DISTANCE_RMSE } bq_distance;

struct bq_ops {
    const char *name;

    /* open, close, wait */
    int (*open)(bq_dev *dev, int number, size_t mem); /* number: threads (cpu) or device (cuda) */
    void (*close)(bq_dev *dev);
    void (*wait)(bq_dev *dev);
    /* Recording: a list of ops that is called again and again with the same arguments becomes one launch on a
     * GPU.
     *     if (!op->replay(dev, key)) { ... the ops ...; op->recorded(dev); }
     * replay returns true when the ops recorded under `key` run again, with their scratch and their results
     * on the host.  Else call the ops, but no put, get, wait or other replay among them.  The caller promises
     * that equal keys mean the same calls with the same arguments.  forget: drop all recordings; call it
     * before their memory is used for something else.  A replay gives the same bits.  The cpu
     * never replays. */
    bool (*replay)(bq_dev *dev, uint64_t key);
    void (*recorded)(bq_dev *dev);
    void (*forget)(bq_dev *dev);
    /* Pinned host memory of at least `bytes` bytes for messages, valid until the next call.  NULL where
     * the device is the host. */
    void *(*stage)(bq_dev *dev, size_t bytes);

    /* Pinned host memory for the caller, who gives it back with unpin.  NULL where the device is the host, or
     * where the system pins no more.  Fault point: pin. */
    void *(*pin)(bq_dev *dev, size_t bytes);
    void (*unpin)(bq_dev *dev, void *memory);

    /* Copies between matrices of the same shape and type.
     *   put   from the host, or from the device where a stream is kept there.  Pinned memory must not be
     *         written until the next wait; other memory may be written at once
     *   get   to the host; there after the next wait */
    void (*put)(bq_dev *dev, bq_mat host, bq_mat to);
    void (*get)(bq_dev *dev, bq_mat from, bq_mat host);
    /* Copies beside the ops.
     *   put_ahead   from pinned memory.  It waits for the ops that were called before the last join, not for
     *               later ones; ops called after the next join see the copy
     *   arrived     are all these copies done, so that their sources may be written again?
     *   join        see put_ahead
     * All three are NULL where the device is the host. */
    void (*put_ahead)(bq_dev *dev, bq_mat pinned, bq_mat to);
    bool (*arrived)(bq_dev *dev);
    void (*join)(bq_dev *dev);

#define OP(type, name, class, ...) type (*name)(bq_dev * dev, __VA_ARGS__);
#include "kernels/ops.def"
};

/* The backends.  In a build without CUDA bq_ops_cuda refuses to open, and there are 0 devices. */
extern const bq_ops bq_ops_cpu, bq_ops_cuda;
int bq_cuda_devices(void);
/* Free bytes of GPU `number`, modulo the number of GPUs; 0 where there is none. */
size_t bq_cuda_memory(int number);
/* The stream (cudaStream_t) on which the ops of a cuda device run. */
void *bq_cuda_stream(const bq_dev *dev);

/* Arena bytes that ops take beside their arguments, for the plan: the most that one op takes, but for gemm,
 * factor, gptq and refine, which are below since not every run needs them. */
size_t bq_op_scratch(int64_t tokens, bq_attention a, int64_t vocab);
size_t bq_distill_scratch(int64_t tokens, int64_t vocab);
/* The same for a gemm with c (m, n) and sums over k; a gram takes no more than gemm with its shapes. */
size_t bq_gemm_scratch(bq_compute compute, int64_t m, int64_t n, int64_t k);
/* Host bytes outside arenas that the cpu backend takes at its first products and keeps, for packed operands,
 * with that many threads (0: as many as OpenMP starts). */
size_t bq_cpu_packing(int threads);
/* The same as bq_gemm_scratch for factor, gptq and refine; group: columns that share a scale, <= 0: all. */
size_t bq_factor_scratch(int64_t k);
size_t bq_gptq_scratch(int64_t rows, int64_t k, int64_t group);
size_t bq_refine_scratch(int64_t rows, int64_t k, int64_t group);

#endif
