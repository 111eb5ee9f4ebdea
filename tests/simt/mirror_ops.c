/* The mirror's table: what each op's matrices are, and how near the backends must be. */
#include "mirror.h"

#define BITWISE 0
#define NEAR    1e-10 /* kernels/ops.h */

/* For each run: d is its device. */
#define EACH(limit, ...)                                                                                     \
    static unsigned calls;                                                                                   \
    mirror_run *run = mirror_start(dev, __func__, limit, &calls, (bq_mat *[]){__VA_ARGS__, NULL});           \
    for (bq_dev * d; (d = mirror_next(run));)

static bq_mat host(double *values, int64_t count) {
    bq_mat m = bq_mat_host(values, count, 1, BQ_F64);
    m.place = MIRROR_HOST;
    return m;
}

static int open_none(bq_dev *dev, int number, size_t mem) {
    (void)dev, (void)number, (void)mem;
    return BQ_USAGE;
}
static void close_cpu(bq_dev *dev) { bq_ops_cpu.close(dev); }
static void wait(bq_dev *dev) { (void)dev; }
static bool replay(bq_dev *dev, uint64_t key) {
    (void)dev, (void)key;
    return false;
}
static void recorded(bq_dev *dev) { (void)dev; }
static void *stage(bq_dev *dev, size_t bytes) {
    (void)dev, (void)bytes;
    return NULL;
}

static void copy(bq_dev *dev, bq_mat from, bq_mat to) { EACH(BITWISE, &from, &to) d->op->copy(d, from, to); }
static void zero(bq_dev *dev, bq_mat m) { EACH(BITWISE, &m) d->op->zero(d, m); }
static void gemm(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c) {
    EACH(NEAR, &a, &b, &c) d->op->gemm(d, ta, tb, alpha, a, b, beta, c);
}
static void scale(bq_dev *dev, bq_mat x, float factor, bq_mat y) {
    EACH(BITWISE, &x, &y) d->op->scale(d, x, factor, y);
}
static void add(bq_dev *dev, bq_mat x, bq_mat y) { EACH(BITWISE, &x, &y) d->op->add(d, x, y); }
static void bias(bq_dev *dev, bq_mat b, bq_mat y) { EACH(BITWISE, &b, &y) d->op->bias(d, b, y); }
static void rmsnorm(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat y) {
    EACH(BITWISE, &x, &weight, &y) d->op->rmsnorm(d, x, weight, eps, y);
}
static void rmsnorm_bwd(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat dy, bq_mat dx) {
    EACH(BITWISE, &x, &weight, &dy, &dx) d->op->rmsnorm_bwd(d, x, weight, eps, dy, dx);
}
static void rope(bq_dev *dev, bq_mat x, int64_t heads, int64_t head_dim, bq_mat cos, bq_mat sin,
                 bool inverse) {
    EACH(BITWISE, &x, &cos, &sin) d->op->rope(d, x, heads, head_dim, cos, sin, inverse);
}
static void attention(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse) {
    EACH(NEAR, &q, &k, &v, &out, &lse) d->op->attention(d, a, q, k, v, out, lse);
}
static void attention_bwd(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse,
                          bq_mat dout, bq_mat dq, bq_mat dk, bq_mat dv) {
    EACH(NEAR, &q, &k, &v, &out, &lse, &dout, &dq, &dk, &dv)
    d->op->attention_bwd(d, a, q, k, v, out, lse, dout, dq, dk, dv);
}
static void glu(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat z) {
    EACH(BITWISE, &g, &u, &z) d->op->glu(d, act, g, u, z);
}
static void glu_bwd(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat dz, bq_mat dg, bq_mat du) {
    EACH(BITWISE, &g, &u, &dz, &dg, &du) d->op->glu_bwd(d, act, g, u, dz, dg, du);
}
static void mse(bq_dev *dev, bq_mat y, bq_mat target, double factor, bq_mat dy, double *loss) {
    bq_mat out = host(loss, 1);
    EACH(BITWISE, &y, &target, &dy, &out) d->op->mse(d, y, target, factor, dy, loss);
}
static void mix(bq_dev *dev, bq_mat fp, bq_mat qt, double p, bq_rng_key at, bq_mat out) {
    EACH(BITWISE, &fp, &qt, &out) d->op->mix(d, fp, qt, p, at, out);
}
static void xent(bq_dev *dev, bq_mat x, bq_mat head, bq_mat next, double *nll) {
    bq_mat out = host(nll, x.rows);
    EACH(NEAR, &x, &head, &next, &out) d->op->xent(d, x, head, next, nll);
}

static void range(bq_dev *dev, bq_mat w, bq_scheme s, bq_mat to, bq_mat zeros) {
    EACH(BITWISE, &w, &to, &zeros) d->op->range(d, w, s, to, zeros);
}
static void quantize(bq_dev *dev, bq_mat w, bq_mat by, bq_mat zeros, bq_scheme s, bq_mat code) {
    EACH(BITWISE, &w, &by, &zeros, &code) d->op->quantize(d, w, by, zeros, s, code);
}
static void dequantize(bq_dev *dev, bq_mat code, bq_mat by, bq_mat zeros, bq_mat w) {
    EACH(BITWISE, &code, &by, &zeros, &w) d->op->dequantize(d, code, by, zeros, w);
}
static void fake_quantize_rows(bq_dev *dev, bq_mat x, int bits, bq_mat y) {
    EACH(BITWISE, &x, &y) d->op->fake_quantize_rows(d, x, bits, y);
}
static void range_shrunk(bq_dev *dev, bq_mat w, bq_scheme s, float shrink, bq_mat to, bq_mat zeros,
                         bq_mat e) {
    EACH(BITWISE, &w, &to, &zeros, &e) d->op->range_shrunk(d, w, s, shrink, to, zeros, e);
}
static void range_mse(bq_dev *dev, bq_mat w, bq_scheme s, bq_shrink ends, bq_mat to, bq_mat zeros) {
    EACH(BITWISE, &w, &to, &zeros) d->op->range_mse(d, w, s, ends, to, zeros);
}
static void range_better(bq_dev *dev, bool first, bq_mat a, bq_mat b, bq_mat by, bq_mat zeros, bq_mat loss,
                         bq_mat best, bq_mat best_zero) {
    EACH(BITWISE, &a, &b, &by, &zeros, &loss, &best, &best_zero)
    d->op->range_better(d, first, a, b, by, zeros, loss, best, best_zero);
}
static void range_levels(bq_dev *dev, bq_mat by, int levels, bq_type type) {
    EACH(BITWISE, &by) d->op->range_levels(d, by, levels, type);
}
static void half_quadratic(bq_dev *dev, bq_mat w, bq_scheme s, bq_quadratic o, bq_mat by, bq_mat zeros) {
    EACH(BITWISE, &w, &by, &zeros) d->op->half_quadratic(d, w, s, o, by, zeros);
}
static void adascale_weights(bq_dev *dev, const bq_adascale *of, bq_scheme s, bq_mat what, bq_mat by,
                             bq_mat fold) {
    bq_adascale p = *of;
    EACH(BITWISE, &p.w, &p.hi, &p.lo, &p.beta, &p.gamma, &p.s3, &p.s2, &p.m_row, &p.v_row, &p.m_s2, &p.v_s2,
         &what, &by, &fold)
    d->op->adascale_weights(d, &p, s, what, by, fold);
}
static void adascale_step(bq_dev *dev, const bq_adascale *of, bq_scheme s, bq_mat g, bq_mat adam,
                          bq_mat grad) {
    bq_adascale p = *of;
    EACH(BITWISE, &p.w, &p.hi, &p.lo, &p.beta, &p.gamma, &p.s3, &p.s2, &p.m_row, &p.v_row, &p.m_s2, &p.v_s2,
         &g, &adam, &grad)
    d->op->adascale_step(d, &p, s, g, adam, grad);
}
static void gram(bq_dev *dev, bq_mat x, bq_mat h) { EACH(NEAR, &x, &h) d->op->gram(d, x, h); }
static void order(bq_dev *dev, bq_mat diag, bq_order kind, int64_t group, bq_mat to) {
    EACH(BITWISE, &diag, &to) d->op->order(d, diag, kind, group, to);
}
static bool factor(bq_dev *dev, bq_mat h, bq_mat columns, double by, double damp, bq_mat ut) {
    bool definite[2] = {0};
    EACH(NEAR, &h, &columns, &ut) {
        bool is = d->op->factor(d, h, columns, by, damp, ut);
        if (d->op == &bq_ops_cpu) definite[0] = definite[1] = is;
        BQ_CHECK(is == definite[0], "factor: backends disagree whether a matrix is positive definite");
    }
    return definite[0];
}
static void fit(bq_dev *dev, bq_mat w, bq_mat weight, bq_scheme s, bq_mat to, bq_mat zeros) {
    EACH(BITWISE, &w, &weight, &to, &zeros) d->op->fit(d, w, weight, s, to, zeros);
}
static void gptq(bq_dev *dev, const bq_gptq *of, bq_scheme s, bq_mat fold) {
    bq_gptq p = *of;
    EACH(BITWISE, &p.w, &p.ut, &p.order, &p.diag, &p.scale, &p.zero, &fold) d->op->gptq(d, &p, s, fold);
}

static void set(bq_dev *dev, bq_mat m, float value) { EACH(BITWISE, &m) d->op->set(d, m, value); }
static void column_max(bq_dev *dev, bq_mat x, float sign, bq_mat m) {
    EACH(BITWISE, &x, &m) d->op->column_max(d, x, sign, m);
}
static void column_abs(bq_dev *dev, bq_mat x, int64_t group, bq_mat sum) {
    EACH(BITWISE, &x, &sum) d->op->column_abs(d, x, group, sum);
}
static void column_squares(bq_dev *dev, bq_mat x, bq_mat sum) {
    EACH(BITWISE, &x, &sum) d->op->column_squares(d, x, sum);
}
static void times_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y) {
    EACH(BITWISE, &x, &s, &y) d->op->times_columns(d, x, s, y);
}
static void over_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y) {
    EACH(BITWISE, &x, &s, &y) d->op->over_columns(d, x, s, y);
}
static void over_rows(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y) {
    EACH(BITWISE, &x, &s, &y) d->op->over_rows(d, x, s, y);
}
static void smooth_scale(bq_dev *dev, bq_smooth_form form, bq_mat act, bq_mat weight, bq_mat s) {
    EACH(BITWISE, &act, &weight, &s) d->op->smooth_scale(d, form, act, weight, s);
}
static void head_max(bq_dev *dev, bq_mat s, int64_t head) { EACH(BITWISE, &s) d->op->head_max(d, s, head); }
static void smooth_weights(bq_dev *dev, bq_mat w, bq_mat s, bq_scheme scheme, bq_mat out) {
    EACH(BITWISE, &w, &s, &out) d->op->smooth_weights(d, w, s, scheme, out);
}
static void distance(bq_dev *dev, bq_mat a, bq_mat b, bq_distance kind, double *sum) {
    bq_mat out = host(sum, 1);
    EACH(BITWISE, &a, &b, &out) d->op->distance(d, a, b, kind, sum);
}
static void clip_error(bq_dev *dev, bq_mat w, float factor_of, bq_scheme s, bq_mat out) {
    EACH(BITWISE, &w, &out) d->op->clip_error(d, w, factor_of, s, out);
}
static void clip_rows(bq_dev *dev, bq_mat error, float step, bq_mat w) {
    EACH(BITWISE, &error, &w) d->op->clip_rows(d, error, step, w);
}

const bq_ops mirror_ops = {
    .name = "cpu and cuda",
    .open = open_none,
    .close = close_cpu,
    .wait = wait,
    .replay = replay,
    .recorded = recorded,
    .forget = recorded,
    .stage = stage,
    .put = copy,
    .get = copy,
    .copy = copy,
    .zero = zero,
    .gemm = gemm,
    .scale = scale,
    .add = add,
    .bias = bias,
    .rmsnorm = rmsnorm,
    .rmsnorm_bwd = rmsnorm_bwd,
    .rope = rope,
    .attention = attention,
    .attention_bwd = attention_bwd,
    .glu = glu,
    .glu_bwd = glu_bwd,
    .mse = mse,
    .mix = mix,
    .xent = xent,
    .range = range,
    .quantize = quantize,
    .dequantize = dequantize,
    .fake_quantize_rows = fake_quantize_rows,
    .range_shrunk = range_shrunk,
    .range_mse = range_mse,
    .range_better = range_better,
    .range_levels = range_levels,
    .half_quadratic = half_quadratic,
    .adascale_weights = adascale_weights,
    .adascale_step = adascale_step,
    .gram = gram,
    .order = order,
    .factor = factor,
    .fit = fit,
    .gptq = gptq,
    .set = set,
    .column_max = column_max,
    .column_abs = column_abs,
    .column_squares = column_squares,
    .times_columns = times_columns,
    .over_columns = over_columns,
    .over_rows = over_rows,
    .smooth_scale = smooth_scale,
    .head_max = head_max,
    .smooth_weights = smooth_weights,
    .distance = distance,
    .clip_error = clip_error,
    .clip_rows = clip_rows,
};
