/* ops.h - the ops table: everything that blockq computes on a device, and what each op
 * promises.  Read this first.
 *
 * A backend is one instance of this table.  `cpu` has every op and defines its result.  Another backend must
 * give the same bits in ops of class "bitwise"; in ops of class "NMSE x" its normalized mean squared error,
 * sum (result - cpu)^2 / sum cpu^2, is at most x.
 *
 * Matrices are views (base/mat.h) of the device's memory, f32 unless stated; ld may exceed cols.  Letters:
 *   T       tokens of one sample            nh, nkv   query heads, key-value heads
 *   H, I    hidden size, width of the MLP   hd        size of a head
 *   V       vocabulary                      K         columns of a linear
 *   rne     round to nearest, ties to even  w_hat     dequantized weights (`what` in names)
 *
 * An output must not share memory with an input unless the op says so.  Ops are asynchronous but run in the
 * order of their calls; what they write on the host is there after `wait`.  Scratch is pushed to the device's
 * arena and taken back before the op returns (bq_op_scratch says how much).  No result depends on the number
 * of threads.  A wrong shape is a bug and ends the job (BQ_CHECK). */
#ifndef BQ_OPS_H
#define BQ_OPS_H

#include "base/arena.h"
#include "base/model.h"
#include "base/rng.h"
#include "kernels/grid.h"
#include "kernels/quadratic.h"
#include "kernels/smooth.h"

typedef struct bq_ops bq_ops;

/* How products of floats are computed, the most exact way first.  Sums are always in f32. */
typedef enum {
    BQ_COMPUTE_F32,
    BQ_COMPUTE_BF16X3, /* three products of bf16: an error of 2^-18 in a product; NMSE 5e-11 in a sum */
    BQ_COMPUTE_TF32,   /* operands rounded to 10 bits behind the point: NMSE about 5e-8 */
    BQ_COMPUTE_BF16,   /* operands rounded to bf16, to nearest even: NMSE about 5e-6 */
    BQ_COMPUTES
} bq_compute;

typedef struct {
    const bq_ops *op;
    unsigned computes;  /* bit c: the device can compute in way c; F32 is always set */
    bq_compute compute; /* how it computes now, one of `computes`: F32 when opened.  For gemm and
                           gram; attention may follow it */
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
 * computed as g (BQ_GELU_1 + BQ_GELU_3 g^2). */
#define BQ_GELU_1 1.5957691216f
#define BQ_GELU_3 0.0713548163f

/* A search among grids whose ends shrink: both ends times p = 1 - i / steps, for i = 0 ...
 * count - 1. */
typedef enum { BQ_NORM_2, BQ_NORM_24 } bq_norm; /* the exponent of |error|: 2 or 2.4 */
typedef struct {
    int steps, count; /* 1 <= count <= steps */
    bq_norm norm;
} bq_shrink;

/* The numbers of an attention. */
typedef struct {
    int64_t heads, kv_heads, head_dim;
    float scale;    /* factor of q k^T, usually head_dim^-1/2 */
    int64_t window; /* query i sees key j if i - window < j <= i; 0: if j <= i */
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
} bq_adam;

/* How a grid may be narrower than the range of the weights that it is fitted to. */
typedef enum {
    BQ_CLIP_MINMAX,  /* not at all: from the smallest to the largest weight */
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
    bq_mat diag;        /* (K, 1), columns as they stand; where it is 0 the weights count as 0 */
    bq_mat scale, zero; /* (rows * groups, 1): the grids; with `dynamic` an output, too */
    bool dynamic;       /* fit the grid of a group when its first column's turn comes */
    bq_clip clip;       /* how to fit it: range, range_mse with `ends`, or fit with weights diag */
    bq_shrink ends;
} bq_gptq;

/* A distance between two outputs: the sum of d^2, of |d|, or of sqrt|d|.  Quark calls the last one RMSE. */
typedef enum { BQ_DISTANCE_MSE, BQ_DISTANCE_MAE, BQ_DISTANCE_RMSE } bq_distance;

struct bq_ops {
    const char *name;

    /* open, close, wait */
    int (*open)(bq_dev *dev, int number, size_t mem); /* number: threads (cpu) or device (cuda) */
    void (*close)(bq_dev *dev);
    void (*wait)(bq_dev *dev);
    /* Recording: a list of ops that is called again and again with the same arguments
     * becomes one launch on a GPU.
     *     if (!op->replay(dev, key)) { ... the ops ...; op->recorded(dev); }
     * replay returns true when the ops recorded under `key` run again, with their scratch and their results
     * on the host.  Else call the ops, but no put, get, wait or other replay among them.  The caller promises
     * that equal keys mean the same calls with the same arguments.  forget: drop all recordings; call it
     * before their memory is used for something else.  The cpu never replays.  Class: bitwise. */
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
     *   put    from the host, or from the device where a stream is kept there.  Pinned memory must not be
     *          written until the next wait; other memory may be written at once
     *   get    to the host; there after the next wait
     *   copy   on the device */
    void (*put)(bq_dev *dev, bq_mat host, bq_mat to);
    void (*get)(bq_dev *dev, bq_mat from, bq_mat host);
    void (*copy)(bq_dev *dev, bq_mat from, bq_mat to);
    /* Copies beside the ops.
     *   put_ahead   from pinned memory.  It waits for the ops that were called before the last join, not for
     *               later ones; ops called after the next join see the copy
     *   arrived     are all these copies done, so that their sources may be written again?
     *   join        see put_ahead
     * All three are NULL where the device is the host. */
    void (*put_ahead)(bq_dev *dev, bq_mat pinned, bq_mat to);
    bool (*arrived)(bq_dev *dev);
    void (*join)(bq_dev *dev);
    /* All elements of m become 0; any type. */
    void (*zero)(bq_dev *dev, bq_mat m);

    /* c = alpha * op(a) op(b) + beta * c; op transposes where ta, tb are set.  Class: NMSE 1e-10; in the ways
     * of dev->compute that round, NMSE 1e-10 from the product of the rounded operands.  On the cpu tiles are
     * cut by the full shape of c, each one call of a serial BLAS, or kernels/cpu/product.h does it.  2 m n k
     * flop.  Scratch: bq_gemm_scratch. */
    void (*gemm)(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c);

    /* y = x * factor, element by element; y may be x.  Class: bitwise. */
    void (*scale)(bq_dev *dev, bq_mat x, float factor, bq_mat y);
    /* y += x, element by element.  Each may be f32 or f64; where one of them is f64 the sum is, and is then
     * rounded to y's type.  Class: bitwise. */
    void (*add)(bq_dev *dev, bq_mat x, bq_mat y);
    /* y(t, :) += bias(0, :) for all t.  Class: bitwise. */
    void (*bias)(bq_dev *dev, bq_mat bias, bq_mat y);

    /* y = x / sqrt(mean(x^2) + eps) * weight for each run of n columns of each row; weight (1, n), x and y
     * (T, a multiple of n), which may be the same memory.  Sums in 16 fixed lanes.  Class: bitwise. */
    void (*rmsnorm)(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat y);
    /* dx += the gradient of rmsnorm.  It adds, since dx usually holds the gradient of
     * the residual.  Class: bitwise. */
    void (*rmsnorm_bwd)(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat dy, bq_mat dx);

    /* Rotary positions, in place, on the first d = 2 * cos.cols channels of each of `heads` heads of
     * x (T, heads * head_dim):
     *   x[i]       becomes x[i] cos[i] - x[i + d/2] sin[i]
     *   x[i + d/2] becomes x[i + d/2] cos[i] + x[i] sin[i]
     * cos, sin: (T, d/2), with the factor bq_rope.attention in them.  inverse: the transpose, for
     * gradients.  Class: bitwise. */
    void (*rope)(bq_dev *dev, bq_mat x, int64_t heads, int64_t head_dim, bq_mat cos, bq_mat sin,
                 bool inverse);

    /* Causal attention of one sample, with a window if there is one: q, out (T, nh * hd), k, v (T, nkv * hd).
     * Query head h reads kv head h / (nh / nkv).  lse (nh, T) is for the backward: the log of the sum of exp
     * of the scaled scores.  It goes over tiles with a running maximum and sum, so no T x T matrix exists.
     * Products may be computed as dev->compute says.  Class: NMSE 1e-10. */
    void (*attention)(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse);
    /* Gradients dq (T, nh * hd), dk, dv (T, nkv * hd), which are overwritten; probabilities are computed
     * again from lse.  Class: NMSE 1e-10. */
    void (*attention_bwd)(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse,
                          bq_mat dout, bq_mat dq, bq_mat dk, bq_mat dv);

    /* z = act(g) * u, element by element.  Class: bitwise. */
    void (*glu)(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat z);
    /* dg, du from dz; dg may be g and du may be u.  Class: bitwise. */
    void (*glu_bwd)(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat dz, bq_mat dg, bq_mat du);

    /* loss[0] = factor * sum (y - target)^2, on the host after wait; summed in f64, a row in 16
     * lanes, then the rows in order.  Unless dy.data is NULL, dy = 2 factor (y - target); dy may
     * be y.  Class: bitwise. */
    void (*mse)(bq_dev *dev, bq_mat y, bq_mat target, double factor, bq_mat dy, double *loss);

    /* Each element of out is qt's with probability p, else fp's.  Element e = row * cols + col uses word
     * e % 4 of Philox quad e / 4 at `at` (base/rng.h), and is qt's where word < p * 2^32.  Class: bitwise. */
    void (*mix)(bq_dev *dev, bq_mat fp, bq_mat qt, double p, bq_rng_key at, bq_mat out);

    /* nll[t] = logsumexp(logits(t, :)) - logits(t, next(t)) in f64, with logits = x head^T; head is the
     * lm_head.  x (T, H), head (V, H), next (T, 1) i32 in [0, V); nll: T doubles on the host, there after
     * wait.  Logits are made for some rows at a time.  Class: NMSE 1e-10. */
    void (*xent)(bq_dev *dev, bq_mat x, bq_mat head, bq_mat next, double *nll);

    /* The min-max grid of each row of w.  scale, zero: (rows, 1).  zero has whole numbers; here and below
     * zero.data is NULL where the scheme is symmetric.  lo <= 0 <= hi are the ends of the row with 0
     * included; ends that are too close are widened (AIMET).
     *   symmetric    scale = the step of s.grid (grid.h); BQ_GRID_ABSMAX widens no ends: where they are 0 its
     *                step is FLT_EPSILON
     *   asymmetric   scale = (hi - lo) / (qmax - qmin), zero = clamp(qmin - rne(lo / scale), qmin, qmax)
     *                (llm-compressor, Quark)
     * The scale is rounded to s.scale, before zero is computed from it.  Class: bitwise. */
    void (*range)(bq_dev *dev, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero);

    /* code = clamp(rne(w / scale) + zero, qmin, qmax) with a true division; NaN becomes qmin.  code
     * (rows, cols) i8.  Class: bitwise. */
    void (*quantize)(bq_dev *dev, bq_mat w, bq_mat scale, bq_mat zero, bq_scheme s, bq_mat code);
    /* w = (code - zero) * scale.  Class: bitwise. */
    void (*dequantize)(bq_dev *dev, bq_mat code, bq_mat scale, bq_mat zero, bq_mat w);

    /* y = clamp(rne(x / s), qmin, qmax) * s with codes of `bits` bits (2 ... 8) and, for each row, the scale
     * s of BQ_GRID_ABSMAX.  compressed-tensors does this to the inputs of a linear with dynamic symmetric
     * quantization per token.  y may be x.  Class: bitwise. */
    void (*fake_quantize_rows)(bq_dev *dev, bq_mat x, int bits, bq_mat y);
    /* As range, but both ends are multiplied by `shrink` first, in (0, 1].  Unless e.data is NULL, e
     * (rows, cols) = w_hat - w on that grid.  Class: bitwise. */
    void (*range_shrunk)(bq_dev *dev, bq_mat w, bq_scheme s, float shrink, bq_mat scale, bq_mat zero,
                         bq_mat e);
    /* For each row the best grid of range_shrunk with the values of `ends`: the one with the least
     * sum |w_hat - w|^norm, of equals the widest.  w_hat in f32, sums in f64 in 16 lanes; |e|^2.4 is
     * exact to 1e-6.  A sum that is NaN never replaces the min-max grid.  Reads w once for up to 128
     * grids.  Class: bitwise. */
    void (*range_mse)(bq_dev *dev, bq_mat w, bq_scheme s, bq_shrink ends, bq_mat scale, bq_mat zero);
    /* Keep the better grid, row by row.  Where sum a(r, :) b(r, :) (f64, 16 lanes) < loss(r), and with
     * `first` everywhere: loss(r) becomes that sum, and best, best_zero take the row of scale, zero.  loss:
     * (rows, 1) f64.  a and b may be the same matrix.  Class: bitwise. */
    void (*range_better)(bq_dev *dev, bool first, bq_mat a, bq_mat b, bq_mat scale, bq_mat zero, bq_mat loss,
                         bq_mat best, bq_mat best_zero);
    /* Scales in two levels, in place (AIMET's LPBQ): the scales of a row become k * unit with k =
     * rne(scale / unit), a whole number in 1 ... levels.  unit is the row's largest scale / levels, cut
     * off (not rounded) to log2(levels) bits less than `type` has; so every product is exact in that
     * type, and the largest one is levels * unit.  scale: (rows, groups).  levels: a power of 2, at
     * most 64.  Class: bitwise. */
    void (*range_levels)(bq_dev *dev, bq_mat scale, int levels, bq_type type);
    /* Refits the grid of each row of w in place by o.iterations of kernels/quadratic.h (terms in f32, sums in
     * double, 16 lanes); rows do not interact.  scale, zero: the grids to start from; zero need not be whole,
     * and for a symmetric scheme only the scale can be solved for.  A row with NaN or an infinity keeps its
     * grid.  Class: bitwise. */
    void (*half_quadratic)(bq_dev *dev, bq_mat w, bq_scheme s, bq_quadratic o, bq_mat scale, bq_mat zero);

    /* AdaScale's forward, which reads W once; fold.data may be NULL:
     *   s = (exp(gamma) hi - exp(beta) lo) / (qmax - qmin), rounded to scheme.scale   -> scale (rows, 1)
     *   fold = (W / exp(s2)) / exp(s3)                                                -> fold
     *   w_hat = clamp(rne(fold / s), qmin, qmax) * s                                  -> what
     * Class: bitwise. */
    void (*adascale_weights)(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat what, bq_mat scale,
                             bq_mat fold);

    /* AdaScale's backward and the Adam step, from g = dL/dw_hat, which is read once:
     * straight-through, with the mask after rounding.  Updates beta, gamma, s3, s2 and all moments.  adam (1,
     * BQ_ADAM_NUMBERS): the numbers of this step, from bq_adam_put (kernels/adam.h).  For tests: with grad
     * (rows, cols + 3) it only writes the gradients of s2, then beta, gamma, s3, and does not read adam; else
     * grad.data is NULL.  Row sums in 16 fixed lanes.  Class: bitwise. */
    void (*adascale_step)(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat g, bq_mat adam,
                          bq_mat grad);

    /* h = x^T x, exactly symmetric; x (T, K), h (K, K).  It is computed as dev->compute says, or more
     * exactly.  T K^2 flop: one triangle is computed and copied to the other.  Class: NMSE 1e-10. */
    void (*gram)(bq_dev *dev, bq_mat x, bq_mat h);

    /* order (K, 1) i32: entry i is the column that is taken as number i.  diag (K, 1), NaN counts as 0;
     * group: for BQ_ORDER_GAR, divides K.  Of equal columns the one with the smaller number comes
     * first.  Class: bitwise. */
    void (*order)(bq_dev *dev, bq_mat diag, bq_order kind, int64_t group, bq_mat order);

    /* ut = U^T, lower triangular, with U^T U = A^-1 (GPTQ).  A is factor * h with rows and columns
     * in the given order (order.data NULL: as they stand); a 0 on its diagonal becomes 1; then damp times the
     * mean of the diagonal is added to the diagonal.  h, ut (K, K); h f32 or f64; ut may be h where that is
     * f32.  Computed in f64 by a reverse Cholesky factorization: A = R R^T with R upper, U = R^-1.
     * Synchronous.  Returns false, with ut unchanged, when A is not positive definite or not finite.  2/3 K^3
     * flop.  Scratch: bq_factor_scratch.  Class: NMSE 1e-10. */
    bool (*factor)(bq_dev *dev, bq_mat h, bq_mat order, double factor, double damp, bq_mat ut);

    /* The grid of each row of w as range gives it, then clipped: of the scales range *
     * (1 - i / 100), i = 0 ... 79, rounded to s.scale, the first with the least sum weight (w_hat - w)^2.
     * weight (groups, cols): row r uses row r % groups.  zero is range's.  Sums in 16 fixed lanes.  Up to
     * 800 rows cols flop.  Class: bitwise. */
    void (*fit)(bq_dev *dev, bq_mat w, bq_mat weight, bq_scheme s, bq_mat scale, bq_mat zero);

    /* GPTQ's loop over the columns in their order (Frantar et al. 2022).  Column i is rounded to w_hat on its
     * group's grid (true division); e = (w - w_hat) / u_ii; then w_j -= e u_ij for all later columns j.  A
     * weight takes these errors one by one, in processing order, each by a multiplication and a subtraction.
     * fold (rows, K), columns as they stand, may be w: each weight as it was just before rounding, clamped to
     * half a step outside the grid, so that quantize gives GPTQ's codes.  Rows do not interact; panels start
     * at multiples of BQ_GPTQ_ROWS.  rows K^2 flop.  Scratch: bq_gptq_scratch.  Class: bitwise. */
    void (*gptq)(bq_dev *dev, const bq_gptq *p, bq_scheme s, bq_mat fold);

    /* Smoothing: statistics of columns (input channels), scales from them, and what scales do to a matrix. */
    /* All elements of m = value.  Class: bitwise. */
    void (*set)(bq_dev *dev, bq_mat m, float value);
    /* m(0, c) = max(m(0, c), sign * x(r, c)) over all rows r; sign: 1, -1, or 0 for |x|.  NaN is
     * skipped.  Class: bitwise. */
    void (*column_max)(bq_dev *dev, bq_mat x, float sign, bq_mat m);
    /* sum(0, c) = sum over r of |x(r, c)|, rows in order in f64, rounded to f32 at the end.  group > 0: each
     * |x| is first divided by the largest |x| among the `group` columns of its row and group, + 1e-6 (as a
     * product with the reciprocal).  Class: bitwise. */
    void (*column_abs)(bq_dev *dev, bq_mat x, int64_t group, bq_mat sum);
    /* sum(0, c) = sum over r of x(r, c)^2, rows in order in f64, rounded to f32 at the
     * end.  Class: bitwise. */
    void (*column_squares)(bq_dev *dev, bq_mat x, bq_mat sum);
    /* y(r, c) = x(r, c) * s(0, c); x(r, c) / s(0, c); x(r, c) / s(r, 0).  y may be x.  Class: bitwise. */
    void (*times_columns)(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
    void (*over_columns)(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
    void (*over_rows)(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
    /* s (1, cols) by the form (smooth.h), from the statistics act >= 0 and weight >= 0, both (1, cols), in
     * f64 with base/power.h.  weight is not read by LOG and POWER.  Class: bitwise. */
    void (*smooth_scale)(bq_dev *dev, bq_smooth_form form, bq_mat act, bq_mat weight, bq_mat s);
    /* In place: each row of s has the values of several heads, `head` values for each head.  Every value
     * becomes the largest of its place over the heads of the row.  Class: bitwise. */
    void (*head_max)(bq_dev *dev, bq_mat s, int64_t head);
    /* out = dequantize(quantize(w * s)) / s, on the min-max grids of the scheme's groups as range gives them;
     * w, out (rows, cols), s (1, cols).  Class: bitwise. */
    void (*smooth_weights)(bq_dev *dev, bq_mat w, bq_mat s, bq_scheme scheme, bq_mat out);
    /* sum[0] = the distance of a and b, summed over all elements; on the host after wait.  In f64, a row in
     * 16 lanes, then the rows in order.  Class: bitwise. */
    void (*distance)(bq_dev *dev, bq_mat a, bq_mat b, bq_distance kind, double *sum);
    /* out = dequantize(quantize(clamp(w, -c, c))) - w, with c = factor * the row's largest |w|, on the row's
     * min-max grid after clamping.  out must not be w.  Class: bitwise. */
    void (*clip_error)(bq_dev *dev, bq_mat w, float factor, bq_scheme s, bq_mat out);
    /* In place: clamp row r of w to +-(1 - i * step) times its largest |w|, where i is the first row of
     * `error` (candidates, rows of w) that is least in column r.  Class: bitwise. */
    void (*clip_rows)(bq_dev *dev, bq_mat error, float step, bq_mat w);
};

/* The backends.  In a build without CUDA bq_ops_cuda refuses to open, and there are 0 devices. */
extern const bq_ops bq_ops_cpu, bq_ops_cuda;
int bq_cuda_devices(void);
/* Free bytes of GPU `number`, modulo the number of GPUs; 0 where there is none. */
size_t bq_cuda_memory(int number);
/* The stream (cudaStream_t) on which the ops of a cuda device run. */
void *bq_cuda_stream(const bq_dev *dev);

/* Arena bytes that ops take beside their arguments, for the plan: the most that one op takes, but for gemm,
 * factor and gptq, which are below since not every run needs them. */
size_t bq_op_scratch(int64_t tokens, bq_attention a, int64_t vocab);
/* The same for a gemm with c (m, n) and sums over k. */
size_t bq_gemm_scratch(bq_compute compute, int64_t m, int64_t n, int64_t k);
/* Host bytes outside arenas that the cpu backend takes at its first products and keeps, for packed operands,
 * with that many threads (0: as many as OpenMP starts). */
size_t bq_cpu_packing(int threads);
/* The same as bq_gemm_scratch for factor and gptq; group: columns that share a scale, <= 0: all. */
size_t bq_factor_scratch(int64_t k);
size_t bq_gptq_scratch(int64_t rows, int64_t k, int64_t group);

#endif
