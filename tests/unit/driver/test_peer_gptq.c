/* llm-compressor's quantize_weight on three small layers, code by code: the ops that the gptq pass runs on,
 * put together as it does.  Tolerances: tests/vectors/README.md. */
#include "golden.h"

#include "kernels/ops.h"

static bq_dev dev;
static golden g;

typedef struct {
    const char *name;
    int bits;
    int64_t group;
    bool symmetric;
    bq_order order;
} test_case;

static const test_case cases[] = {
    {"sym4_ch", 4, -1, true, BQ_ORDER_NONE},     {"sym4_g32", 4, 32, true, BQ_ORDER_NONE},
    {"asym4_g32", 4, 32, false, BQ_ORDER_NONE},  {"asym4_ch", 4, -1, false, BQ_ORDER_NONE},
    {"sym4_g32_act", 4, 32, true, BQ_ORDER_ACT}, {"asym3_ch_act", 3, -1, false, BQ_ORDER_ACT},
    {"sym8_ch", 8, -1, true, BQ_ORDER_NONE}};

typedef struct {
    int64_t n, k;
    bq_mat w, h, u, diag, order, fold;
} layer;

static void *read(const char *layer_name, const char *case_name, const char *what, int64_t *count) {
    char name[80];
    snprintf(name, sizeof name, "%s/%s%s%s", layer_name, case_name, case_name[0] ? "/" : "", what);
    return golden_read(&g, name, count);
}

static bq_mat push(int64_t rows, int64_t cols, bq_type type) {
    return bq_arena_push(&dev.mem, rows, cols, type);
}

static layer open_layer(const char *name) {
    char full[16];
    snprintf(full, sizeof full, "%s/W", name);
    const bq_tensor *t = bq_weights_find(g.file, full);
    layer l = {.n = t->shape[0], .k = t->shape[1]};
    int64_t count;
    float *w = read(name, "", "W", NULL), *x = read(name, "", "X", &count);
    l.w = push(l.n, l.k, BQ_F32), l.h = push(l.k, l.k, BQ_F32), l.u = push(l.k, l.k, BQ_F32);
    l.diag = push(l.k, 1, BQ_F32), l.order = push(l.k, 1, BQ_I32), l.fold = push(l.n, l.k, BQ_F32);
    memcpy(l.w.data, w, bq_mat_bytes(l.w));
    dev.op->gram(&dev, bq_mat_host(x, count / l.k, l.k, BQ_F32), l.h);
    for (int64_t c = 0; c < l.k; c++) bq_f32(l.diag)[c] = *(float *)bq_mat_at(l.h, c, c);
    if (name[0] != 'c') {
        float *h = read(name, "", "H", NULL); /* 2 x^T x */
        float *mine = malloc(bq_mat_bytes(l.h));
        for (int64_t i = 0; i < l.k * l.k; i++) mine[i] = 2 * bq_f32(l.h)[i];
        assert_true(golden_error(mine, h, l.k * l.k) < 1e-5);
        free(h), free(mine);
    }
    free(w), free(x);
    return l;
}

/* Half of sum e^2 of a row: e = (w - q) R with R R^T the damped matrix, so the trace form. */
static double row_loss(const layer *l, const double *damped, const float *w, const float *what) {
    double sum = 0;
    for (int64_t i = 0; i < l->k; i++) {
        double half = 0, wi = bq_f32(l->diag)[i] == 0 ? 0 : (double)w[i];
        for (int64_t j = 0; j < l->k; j++) {
            double wj = bq_f32(l->diag)[j] == 0 ? 0 : (double)w[j];
            half += damped[i * l->k + j] * (wj - (double)what[j]);
        }
        sum += (wi - (double)what[i]) * half;
    }
    return sum / 2;
}

static double *damped(const layer *l) {
    double *a = malloc((size_t)(l->k * l->k) * sizeof *a), mean = 0;
    for (int64_t i = 0; i < l->k * l->k; i++) a[i] = 2.0 * (double)bq_f32(l->h)[i];
    for (int64_t i = 0; i < l->k; i++) {
        if (a[i * l->k + i] == 0) a[i * l->k + i] = 1;
        mean += a[i * l->k + i] / (double)l->k;
    }
    for (int64_t i = 0; i < l->k; i++) a[i * l->k + i] += 0.01 * mean;
    return a;
}

static int check_case(const layer *l, const char *name, const test_case *t) {
    bq_scheme s = {t->bits, t->group, t->symmetric, BQ_F32, BQ_GRID_ABSMAX};
    int64_t group = t->group > 0 ? t->group : l->k, groups = l->k / group, count, unlike = 0, total;
    size_t mark = bq_arena_mark(&dev.mem);
    float *scale = read(name, t->name, "scale", &count);
    int8_t *zp = read(name, t->name, "zp", NULL), *q = read(name, t->name, "q", NULL);
    double *loss = read(name, t->name, "loss", &total), mine = 0, theirs = 0;
    bq_mat sc = push(count, 1, BQ_F32), zero = {0};
    if (!t->symmetric) zero = push(count, 1, BQ_F32);
    dev.op->range(&dev, bq_mat_reshape(l->w, group), s, sc, zero);
    for (int64_t i = 0; i < count; i++)
        assert_true(bq_f32(sc)[i] == scale[i] && (!zero.data || bq_f32(zero)[i] == zp[i]));
    dev.op->order(&dev, l->diag, t->order, 0, l->order);
    assert_true(dev.op->factor(&dev, l->h, l->order, 2, 0.01, l->u));
    bq_gptq p = {.w = l->w, .ut = l->u, .order = l->order, .diag = l->diag, .scale = sc, .zero = zero};
    dev.op->gptq(&dev, &p, s, l->fold);
    bq_mat code = push(l->n, l->k, BQ_I8), what = push(l->n, l->k, BQ_F32);
    dev.op->quantize(&dev, bq_mat_reshape(l->fold, group), sc, zero, s, bq_mat_reshape(code, group));
    dev.op->dequantize(&dev, bq_mat_reshape(code, group), sc, zero, bq_mat_reshape(what, group));
    double *a = damped(l);
    for (int64_t r = 0; r < l->n; r++) {
        int8_t *c = bq_mat_at(code, r, 0);
        bool equal = memcmp(c, q + r * l->k, (size_t)l->k) == 0;
        float *back = malloc((size_t)l->k * sizeof *back);
        for (int64_t j = 0; j < l->k; j++) {
            int64_t at = r * groups + j / group;
            back[j] = (float)(q[r * l->k + j] - zp[at]) * scale[at];
            assert_true(abs(c[j] - q[r * l->k + j]) <= 2);
        }
        double m = row_loss(l, a, bq_mat_at(l->w, r, 0), bq_mat_at(what, r, 0));
        double o = row_loss(l, a, bq_mat_at(l->w, r, 0), back);
        if (equal) assert_true(fabs(m - o) <= 1e-5 * o);
        unlike += !equal, mine += m, theirs += o;
        free(back);
    }
    double said = 0;
    for (int64_t i = 0; i < total; i++) said += loss[i];
    assert_true(fabs(theirs - said) <= 1e-4 * said); /* the trace form is their loss */
    assert_true(fabs(mine - theirs) <= (unlike ? 5e-3 : 1e-5) * theirs);
    free(scale), free(zp), free(q), free(loss), free(a);
    bq_arena_reset(&dev.mem, mark);
    return (int)unlike;
}

static void equals_llm_compressor(void **state) {
    (void)state;
    static const char *const layers[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        size_t mark = bq_arena_mark(&dev.mem);
        layer l = open_layer(layers[i]);
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            int unlike = check_case(&l, layers[i], &cases[k]);
            if (unlike)
                print_message("%s/%s: %d of %ld rows differ\n", layers[i], cases[k].name, unlike, (long)l.n);
            assert_true(unlike <= 1);
        }
        bq_arena_reset(&dev.mem, mark);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_llm_compressor)};
    if (bq_weights_open_file(&g.file, BQ_VECTORS "/peer_gptq.safetensors")) return 1;
    if (bq_dev_open(&dev, "cpu", 1, (size_t)8 << 20)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    bq_weights_close(g.file);
    return failed;
}
