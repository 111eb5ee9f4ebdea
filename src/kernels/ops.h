/* ops.h - the ops table: everything blockq computes on a device, and what each op promises.  Read this page
 * first.
 *
 * A backend is one instance of this table.  `cpu` is complete and is the definition; another backend equals
 * it bitwise where the class says so, else within the op's limit (normalized mean squared error, NMSE).
 *
 * All matrices are views (base/mat.h) on memory of the device, f32 unless stated; ld may exceed cols.  T:
 * tokens of one sample, H: hidden size, I: MLP width, nh / nkv: query / key-value heads, hd: head size.
 * Outputs must not alias inputs unless the op says so.  Ops are asynchronous: results on the host are valid
 * after wait.  Scratch comes from the device's arena and is given back before the op returns; bq_op_scratch
 * says how much that is. Results never depend on the number of threads.  A wrong shape is a bug and ends the
 * job (BQ_CHECK). */
#ifndef BQ_OPS_H
#define BQ_OPS_H

#include "base/arena.h"
#include "base/rng.h"
#include "kernels/grid.h"
#include "kernels/quadratic.h"
#include "kernels/smooth.h"

typedef struct bq_ops bq_ops;

/* How products of floats are made, the most exact first; sums are always in f32. */
typedef enum {
    BQ_COMPUTE_F32,
    BQ_COMPUTE_BF16X3, /* from three products of bf16: 2^-18 of a product, NMSE 5e-11 of a sum */
    BQ_COMPUTE_TF32,   /* of operands rounded to 10 bits behind the point: NMSE about 5e-8 */
    BQ_COMPUTE_BF16,   /* of operands rounded to bf16, to nearest even: NMSE about 5e-6 */
    BQ_COMPUTES
} bq_compute;

typedef struct {
    const bq_ops *op;
    unsigned computes;  /* bit c: it makes products as compute c says; F32 always */
    bq_compute compute; /* of gemm and gram, attention where it likes; one of these; F32 when opened */
    void *impl;         /* the backend's own state */
    bq_arena mem;       /* device memory, sized by the plan */
    char name[96];      /* "cpu avx512+amx OpenBLAS 0.3.21 ...": part of the numerics class */
} bq_dev;

/* Open a backend by name: "cpu", "cuda", "cuda:N" (device N, modulo the number seen) or "auto": cuda where
 * there is a device, else cpu; "auto:N" likewise.  threads: OpenMP threads to use, 0: the environment's.
 * mem: bytes of device memory to reserve.  Returns BQ_OK or BQ_USAGE for an unknown or absent backend. */
int bq_dev_open(bq_dev *dev, const char *backend, int threads, size_t mem);
void bq_dev_close(bq_dev *dev);

/* The way nearest to the one wanted, and not less exact, that a device has.  The recipe's name of a way. */
bq_compute bq_dev_compute(const bq_dev *dev, bq_compute wanted);
const char *bq_compute_name(bq_compute compute);

/* Called now and then while a device is waited for, unless NULL; comm installs it. */
extern void (*bq_dev_waiting)(void);

/* g * sigmoid(t): silu with t = g, gelu's tanh form with t = 2 sqrt(2/pi) (g + 0.044715 g^3), which is
 * g (BQ_GELU_1 + BQ_GELU_3 g^2). */
typedef enum { BQ_SILU, BQ_GELU_TANH } bq_act;
#define BQ_GELU_1 1.5957691216f
#define BQ_GELU_3 0.0713548163f

/* Search of a grid among ends that shrink: times p = 1 - i / steps, i = 0 .. count - 1 (gptq.md 6.2). */
typedef enum { BQ_NORM_2, BQ_NORM_24 } bq_norm; /* of an error's power: 2, 2.4 */
typedef struct {
    int steps, count; /* 1 <= count <= steps */
    bq_norm norm;
} bq_shrink;

/* Attention's fixed numbers. */
typedef struct {
    int64_t heads, kv_heads, head_dim;
    float scale;    /* on q k^T, usually head_dim^-1/2 */
    int64_t window; /* key j is visible to query i iff i - window < j <= i; 0: j <= i */
} bq_attention;

/* AdaScale's trained values of one matrix W (rows, cols): spec names.  hi, lo: (rows, 1), constants, the ends
 * of the initial grid (max, min).  beta scales lo, gamma scales hi, s3 the row, s2 (rows, cols) each element;
 * all in the log domain, 0 at the start.  A matrix with groups is viewed as rows * groups rows of length
 * group. */
typedef struct {
    bq_mat w, hi, lo;           /* in: never written */
    bq_mat beta, gamma, s3, s2; /* trained */
    bq_mat m_row, v_row;        /* Adam moments of beta, gamma, s3: (rows, 3) */
    bq_mat m_s2, v_s2;          /* Adam moments of s2: (rows, cols) */
} bq_adascale;

typedef struct {
    float lr_clip, lr_weight; /* of beta and gamma; of s2 and s3: this step's, after the schedule */
    double beta1, beta2;      /* double: torch derives 1 - beta from the decimal number */
    float eps;
    int64_t step; /* 1-based, for the bias correction */
} bq_adam;

/* How a grid that is fitted to weights may be narrower than their range. */
typedef enum {
    BQ_CLIP_MINMAX,  /* it is not */
    BQ_CLIP_MSE,     /* least sum |error|^norm */
    BQ_CLIP_HESSIAN, /* least sum h error^2, h the diagonal of the inputs' Gram matrix */
} bq_clip;

/* Orders in which GPTQ takes the columns. */
typedef enum {
    BQ_ORDER_NONE, /* as they stand */
    BQ_ORDER_ACT,  /* falling diagonal of the Gram matrix */
    BQ_ORDER_GAR,  /* groups by their largest diagonal, falling; inside a group as with act */
} bq_order;

/* GPTQ of rows of a linear.  It works on panels of so many: who splits a linear does it there. */
#define BQ_GPTQ_ROWS 128
typedef struct {
    bq_mat w;           /* (rows, K) */
    bq_mat ut;          /* (K, K): factor's U^T, in processing order: row j is what is done to column j */
    bq_mat order;       /* (K, 1) i32 */
    bq_mat diag;        /* (K, 1), identity order: where 0, the weights are taken as 0 */
    bq_mat scale, zero; /* (rows * groups, 1): the grids; written where `dynamic` */
    bool dynamic;       /* the grid of a group is fitted when its first column's turn comes */
    bq_clip clip;       /* how, then: range, range_mse with `ends`, or fit with weights diag */
    bq_shrink ends;
} bq_gptq;
/* How far a module's output is from what it was: sums of d^2, |d| and sqrt|d|; the last is what Quark calls
 * RMSE. */
typedef enum { BQ_DISTANCE_MSE, BQ_DISTANCE_MAE, BQ_DISTANCE_RMSE } bq_distance;

struct bq_ops {
    const char *name;

    /* life */
    int (*open)(bq_dev *dev, int number, size_t mem); /* number: of threads (cpu), of the device (cuda) */
    void (*close)(bq_dev *dev);
    void (*wait)(bq_dev *dev);
    /* Ops that are called again and again with the same arguments: one launch on a GPU.
     *     if (!op->replay(dev, key)) { ... the ops ...; op->recorded(dev); }
     * replay: true: the ops that were recorded under this key run again, scratch and results on the host
     * included. False: call them, without put, get, wait or another replay among them.  Equal keys stand for
     * the same calls with the same arguments, which is the caller's word.  forget: of all that is recorded,
     * before the memory is used for something else.  The cpu never replays.  Class: bitwise. */
    bool (*replay)(bq_dev *dev, uint64_t key);
    void (*recorded)(bq_dev *dev);
    void (*forget)(bq_dev *dev);
    /* Host memory of at least that many bytes, pinned, for messages; valid until the next call.  NULL where
     * the device is the host. */
    void *(*stage)(bq_dev *dev, size_t bytes);

    /* Pinned host memory for the caller, who gives it back; NULL where the device is the host, or the system
     * pins no more.  Fault point pin. */
    void *(*pin)(bq_dev *dev, size_t bytes);
    void (*unpin)(bq_dev *dev, void *memory);

    /* move: same shape and type; put reads host memory (of a stream on the device that; pinned memory until
     * the next wait), get writes it */
    void (*put)(bq_dev *dev, bq_mat host, bq_mat to);
    void (*get)(bq_dev *dev, bq_mat from, bq_mat host);
    void (*copy)(bq_dev *dev, bq_mat from, bq_mat to);
    /* As put from pinned memory, but beside the ops that are called later: after those called before the last
     * join, and seen by those called after the next.  arrived: what was put so is there, its source may be
     * written again.  Where the device is the host: NULL. */
    void (*put_ahead)(bq_dev *dev, bq_mat pinned, bq_mat to);
    bool (*arrived)(bq_dev *dev);
    void (*join)(bq_dev *dev);
    void (*zero)(bq_dev *dev, bq_mat m);

    /* c = alpha * op(a) op(b) + beta * c, op = transpose where ta / tb.  Class: NMSE 1e-10; the same bits for
     * any number of threads: tiles are cut by the full shape of c, each one call of a serial BLAS, or by
     * kernels/cpu/product.h.  dev->compute is heeded, with NMSE 1e-10 for the rounded operands.  2 m n k
     * flop. Scratch: bq_gemm_scratch. */
    void (*gemm)(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c);

    /* y = x * factor elementwise; y may alias x.  Class: bitwise. */
    void (*scale)(bq_dev *dev, bq_mat x, float factor, bq_mat y);
    /* y += x elementwise; each is f32 or f64, and where one is f64 so is the sum, rounded to y's type. Class:
     * bitwise. */
    void (*add)(bq_dev *dev, bq_mat x, bq_mat y);
    /* y(t, :) += bias(0, :).  Class: bitwise. */
    void (*bias)(bq_dev *dev, bq_mat bias, bq_mat y);

    /* y = x * rsqrt(mean(x^2) + eps) * weight, per row; weight (1, H).  Class: bitwise (16 fixed lanes). */
    void (*rmsnorm)(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat y);
    /* dx += gradient of the above (models.md 9.1 item 5): adds into dx, which usually holds the residual's
     * gradient. */
    void (*rmsnorm_bwd)(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat dy, bq_mat dx);

    /* Rotate the first 2 * cos.cols channels of each of `heads` heads of size head_dim in x (T, heads *
     * head_dim), in place: rotate-half form, out[i] = x[i] c - x[i+d/2] s, out[i+d/2] = x[i+d/2] c + x[i] s.
     * cos, sin: (T, d/2), attention scaling included.  inverse: the transpose, for gradients.  Class:
     * bitwise. */
    void (*rope)(bq_dev *dev, bq_mat x, int64_t heads, int64_t head_dim, bq_mat cos, bq_mat sin,
                 bool inverse);

    /* Causal (or windowed) attention of one sample: q (T, nh*hd), k and v (T, nkv*hd), out (T, nh*hd),
     * lse (nh, T): log of the sum of exponentials of scaled scores, for the backward.  Query head h reads kv
     * head h / (nh/nkv).  Blocked with running max and sum: no T x T matrix.  Class: NMSE 1e-10; its products
     * may be made as dev->compute allows. */
    void (*attention)(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse);
    /* Overwrites dq (T, nh*hd), dk, dv (T, nkv*hd); recomputes probabilities from lse. */
    void (*attention_bwd)(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse,
                          bq_mat dout, bq_mat dq, bq_mat dk, bq_mat dv);

    /* z = act(g) * u elementwise.  Class: bitwise. */
    void (*glu)(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat z);
    /* dg, du from dz; dg may alias g and du may alias u.  Class: bitwise. */
    void (*glu_bwd)(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat dz, bq_mat dg, bq_mat du);

    /* loss[0] = factor * sum (y - target)^2 (f64, host-visible after wait; rows in order, 16 lanes), and,
     * unless dy.data is NULL, dy = 2 factor (y - target); dy may alias y.  Class: bitwise. */
    void (*mse)(bq_dev *dev, bq_mat y, bq_mat target, double factor, bq_mat dy, double *loss);

    /* out = u < p ? qt : fp per element, u the Philox number of that element (base/rng.h): element e = row *
     * cols + col uses word e % 4 of quad e / 4; u < p is word < p * 2^32.  out may alias neither.  Class:
     * bitwise. */
    void (*mix)(bq_dev *dev, bq_mat fp, bq_mat qt, double p, bq_rng_key at, bq_mat out);

    /* nll[t] = logsumexp(logits(t, :)) - logits(t, next(t)), f64, logits = x head^T computed in chunks of
     * rows, never all at once; x (T, H), head (V, H), next (T, 1) i32 in [0, V); nll: T doubles on the host.
     * Class: NMSE 1e-10. */
    void (*xent)(bq_dev *dev, bq_mat x, bq_mat head, bq_mat next, double *nll);

    /* Min-max grid of each row of w; scale, zero: (rows, 1) f32, zero holds whole numbers, and has data NULL
     * for a symmetric scheme, here and below.  lo <= 0 <= hi are the ends of the row and 0, widened when too
     * close (adascale.md 1.3).  Symmetric: the scale is s.grid's step; BQ_GRID_ABSMAX widens no ends, its
     * step is FLT_EPSILON where they are 0.  Else scale = (hi - lo) / (qmax - qmin) and zero = clamp(qmin -
     * rne(lo / scale), qmin, qmax) (gptq.md 6.1).  Scales are rounded to s.scale, before zero is taken.
     * Class: bitwise. */
    void (*range)(bq_dev *dev, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero);

    /* code = clamp(rne(w / scale) + zero, qmin, qmax), true division, half to even; code: (rows, cols) i8.
     * Class: bitwise. */
    void (*quantize)(bq_dev *dev, bq_mat w, bq_mat scale, bq_mat zero, bq_scheme s, bq_mat code);
    /* w = (code - zero) * scale.  Class: bitwise. */
    void (*dequantize)(bq_dev *dev, bq_mat code, bq_mat scale, bq_mat zero, bq_mat w);

    /* y = clamp(rne(x / s), qmin, qmax) * s with codes of `bits` bits (2 .. 8) and a scale s of its own for
     * each row, that of BQ_GRID_ABSMAX: what compressed-tensors does to the inputs of a linear with dynamic
     * symmetric quantization a token.  y may alias x.  Class: bitwise. */
    void (*fake_quantize_rows)(bq_dev *dev, bq_mat x, int bits, bq_mat y);
    /* The min-max grid of each row as `range` makes it, from ends that are shrunk first: both times `shrink`,
     * in (0, 1].  e, unless its data is NULL: what the grid makes of w, minus w; (rows, cols) f32.  Class:
     * bitwise. */
    void (*range_shrunk)(bq_dev *dev, bq_mat w, bq_scheme s, float shrink, bq_mat scale, bq_mat zero,
                         bq_mat e);
    /* Of the grids above with those values of `shrink`, each row's with the least sum |what - w|^norm
     * (rounding in f32, sums in double, 16 lanes; norm 2.4 to 1e-6); the widest among equals.  An error that
     * is no number never wins over the min-max grid.  Reads w once for up to 128 grids.  Class: bitwise. */
    void (*range_mse)(bq_dev *dev, bq_mat w, bq_scheme s, bq_shrink ends, bq_mat scale, bq_mat zero);
    /* Row r of the candidate grids scale, zero replaces that of best and best_zero where sum(a(r, :) b(r, :))
     * (double, 16 lanes) < loss(r), which it replaces too; all rows where first is set.  loss: (rows, 1) f64;
     * a and b may be the same matrix.  Class: bitwise. */
    void (*range_better)(bq_dev *dev, bool first, bq_mat a, bq_mat b, bq_mat scale, bq_mat zero, bq_mat loss,
                         bq_mat best, bq_mat best_zero);
    /* Scales in two levels, in place (adascale.md 5.4): the scales of a row become k * unit, k a whole number
     * in 1 .. levels, k = rne(scale / unit), unit = max of the row / levels.  scale: (rows, groups) f32.
     * levels: a power of 2 up to 64.  unit is cut to log2(levels) fewer digits than `type` has: each product
     * is exact and a number of that type, and the row's largest is levels * unit.  Class: bitwise. */
    void (*range_levels)(bq_dev *dev, bq_mat scale, int levels, bq_type type);
    /* Refits the grid of each row of w in place by o.iterations of kernels/quadratic.h (terms in f32, sums in
     * double, 16 lanes); rows do not interact.  scale, zero: the grids to start from; zero need not be whole,
     * and for a symmetric scheme only the scale can be solved for.  A row with NaN or an infinity keeps its
     * grid.  Class: bitwise. */
    void (*half_quadratic)(bq_dev *dev, bq_mat w, bq_scheme s, bq_quadratic o, bq_mat scale, bq_mat zero);

    /* AdaScale forward in one pass over W (adascale.md 1.5):
     *   s = (exp(gamma) hi - exp(beta) lo) / (qmax - qmin), rounded to scheme.scale    -> scale (rows, 1)
     *   fold = (W / exp(s2)) / exp(s3);  what = clamp(rne(fold / s), qmin, qmax) * s
     * fold.data may be NULL.  Class: bitwise. */
    void (*adascale_weights)(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat what, bq_mat scale,
                             bq_mat fold);

    /* AdaScale backward and Adam in one pass over g = dL/dWhat (adascale.md 1.6, 2.3): straight-through, mask
     * after rounding; updates beta, gamma, s3, s2 and all moments.  adam (1, BQ_ADAM_NUMBERS): this step's,
     * from bq_adam_put (kernels/adam.h).  grad.data NULL, or (rows, cols + 3): the gradients of s2, then
     * beta, gamma, s3 (tests; adam is not looked at and nothing is updated).  Row sums run in 16 fixed lanes.
     * Class: bitwise. */
    void (*adascale_step)(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat g, bq_mat adam,
                          bq_mat grad);

    /* h = x^T x, exactly symmetric; x (T, K), h (K, K).  Class: NMSE 1e-10; the same bits for any number of
     * threads (tiles cut by K).  dev->compute is heeded, or something more exact done.  T K^2 flop: one
     * triangle is computed, the other copied. */
    void (*gram)(bq_dev *dev, bq_mat x, bq_mat h);

    /* The order of the columns: order (K, 1) i32, entry i is the column that is taken i-th.  diag (K, 1);
     * group: of BQ_ORDER_GAR, divides K.  Equal (NaN counts as 0): the smaller column first.  Class: bitwise.
     */
    void (*order)(bq_dev *dev, bq_mat diag, bq_order kind, int64_t group, bq_mat order);

    /* ut = U^T, lower triangular, zeros above, with U^T U = A^-1 (gptq.md 2 to 4).  A = factor * h with rows
     * and columns in the given order (order.data NULL: as they stand), 1 where its diagonal is 0, and damp
     * times the mean of its diagonal added there.  h, ut (K, K), h f32 or f64; ut may alias an h of f32.  In
     * double; reverse Cholesky: A = R R^T with R upper, U = R^-1. Returns false, ut untouched, when A is not
     * positive definite or not finite. Synchronous.  Class: NMSE 1e-10; the same bits for any number of
     * threads.  2/3 K^3 flop.  Scratch: bq_factor_scratch. */
    bool (*factor)(bq_dev *dev, bq_mat h, bq_mat order, double factor, double damp, bq_mat ut);

    /* Grid of each row of w, as range, then clipped (gptq.md 6.2): of the scales range * p, p = 1 - i / 100,
     * i = 0 .. 79, rounded to s.scale, the first with the least sum weight error^2; weight: (groups, cols),
     * row r has weights r % groups.  The zero point is range's.  Sums in 16 fixed lanes.  Class: bitwise.  Up
     * to 800 rows cols flop. */
    void (*fit)(bq_dev *dev, bq_mat w, bq_mat weight, bq_scheme s, bq_mat scale, bq_mat zero);

    /* GPTQ's loop over the columns in their order (gptq.md 5): column i is quantized to q on its group's grid
     * (true division), e = (w - q) / u_ii, and w_j -= e u_ij for the columns j behind.  fold (rows, K),
     * identity order, may alias w: the weight of each column when it was quantized, clamped to half a step
     * outside the grid, so that quantize gives GPTQ's codes.  A weight takes in the errors one by one in
     * processing order, each with a multiplication and a subtraction.  Rows do not interact; panels are cut
     * every BQ_GPTQ_ROWS rows.  Class: bitwise.  rows K^2 flop.  Scratch: bq_gptq_scratch. */
    void (*gptq)(bq_dev *dev, const bq_gptq *p, bq_scheme s, bq_mat fold);
    /* smoothing: statistics of channels, scales, and what they do to a matrix */
    /* Every element of m (f32).  Class: bitwise. */
    void (*set)(bq_dev *dev, bq_mat m, float value);
    /* m(0, c) = max(m(0, c), sign * x(r, c)) over the rows; sign 1, -1, or 0 for |x|.  NaN is passed over.
     * Class: bitwise. */
    void (*column_max)(bq_dev *dev, bq_mat x, float sign, bq_mat m);
    /* sum(0, c) = sum of |x(r, c)| over the rows, in order in f64.  group > 0: each |x| times 1 / (the
     * largest |x| among the `group` columns of that row that c belongs to, + 1e-6).  Class: bitwise. */
    void (*column_abs)(bq_dev *dev, bq_mat x, int64_t group, bq_mat sum);
    /* sum(0, c) = sum of x(r, c)^2 over the rows, in order in f64.  Class: bitwise. */
    void (*column_squares)(bq_dev *dev, bq_mat x, bq_mat sum);
    /* y(r, c) = x(r, c) * s(0, c), x(r, c) / s(0, c), x(r, c) / s(r, 0); y may alias x.  Class: bitwise. */
    void (*times_columns)(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
    void (*over_columns)(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
    void (*over_rows)(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
    /* s (1, cols) by the form from act (1, cols) >= 0 and weight (1, cols) >= 0, in f64 with base/power.h;
     * weight.data may be NULL for LOG and POWER.  Class: bitwise. */
    void (*smooth_scale)(bq_dev *dev, bq_smooth_form form, bq_mat act, bq_mat weight, bq_mat s);
    /* Each row of s holds the heads of a group, `head` values each: all become the largest over the heads,
     * value by value.  In place.  Class: bitwise. */
    void (*head_max)(bq_dev *dev, bq_mat s, int64_t head);
    /* out = dequantize(quantize(w * s)) / s, on min-max grids of the scheme's groups as `range` gives them;
     * w, out (rows, cols), s (1, cols).  Class: bitwise. */
    void (*smooth_weights)(bq_dev *dev, bq_mat w, bq_mat s, bq_scheme scheme, bq_mat out);
    /* sum[0] = the sum over all elements (f64, rows in order, 16 lanes; host-visible after wait).  Class:
     * bitwise. */
    void (*distance)(bq_dev *dev, bq_mat a, bq_mat b, bq_distance kind, double *sum);
    /* out = dequantize(quantize(clamp(w, -c, c))) - w, c = factor * the largest |w| of the row, on the row's
     * min-max grid after clamping; out does not alias w.  Class: bitwise. */
    void (*clip_error)(bq_dev *dev, bq_mat w, float factor, bq_scheme s, bq_mat out);
    /* Clamps each row r of w to +-(1 - i * step) times its largest |w|, i the first row of `error`
     * (candidates, rows of w) with the least error in column r.  In place.  Class: bitwise. */
    void (*clip_rows)(bq_dev *dev, bq_mat error, float step, bq_mat w);
};

/* The backends.  A build without CUDA has a bq_ops_cuda that refuses to open, and sees no devices. */
extern const bq_ops bq_ops_cpu, bq_ops_cuda;
int bq_cuda_devices(void);
/* Free memory of device `number`, modulo those seen; 0 where there is none. */
size_t bq_cuda_memory(int number);
/* The stream (cudaStream_t) that the ops of a cuda device run on. */
void *bq_cuda_stream(const bq_dev *dev);

/* Device scratch an op takes beside its arguments, for the plan: the largest over the ops that need any. */
size_t bq_op_scratch(int64_t tokens, bq_attention a, int64_t vocab);
/* The same for gemm, c (m, n) with sums of k, and for factor and gptq, which not every run needs; group:
 * columns that share a scale. */
size_t bq_gemm_scratch(bq_compute compute, int64_t m, int64_t n, int64_t k);
/* Host memory outside of arenas that the cpu backend takes in its first products and keeps: what operands are
 * packed to, of so many threads (0: as many as OpenMP starts). */
size_t bq_cpu_packing(int threads);
size_t bq_factor_scratch(int64_t k);
size_t bq_gptq_scratch(int64_t rows, int64_t k, int64_t group);

#endif
