/* SPDX-License-Identifier: Apache-2.0 */
/* Grid searches on as many replicas as mpirun gives: the bytes of one rank alone, consistent codes, and
 * errors that are never larger than those of the min-max grid.
 */
#include "../rig.h"
#include "block/common/gram.h"
#include "block/passes/search.h"
#include "expect.h"

/* gate and up have three slabs, the last one short; replicas beyond the third have none */
enum { MOST = 6, TOKENS = 11, H = 24, INTER = 528 };

static const bq_scheme schemes[] = {{4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},
                                    {4, 8, true, BQ_F32, BQ_GRID_AIMET, 1, 0},
                                    {3, -1, false, BQ_F16, BQ_GRID_AIMET, 1, 0},
                                    {2, 24, false, BQ_BF16, BQ_GRID_AIMET, 1, 0}};
#define SCHEMES ((int)(sizeof schemes / sizeof *schemes))

static rig *r;

static void open_rig(int family, bq_scheme scheme) {
    r = rig_open(&(rig_spec){.model = {family, H, INTER, .heads = 4, .kv_heads = 2},
                             .scheme = &scheme,
                             .samples = MOST,
                             .tokens = TOKENS,
                             .noise = {[BQ_STREAM_QT] = 2}});
    r->c.input = BQ_INPUTS_QT;
    for (int k = 0; k < RIG_SITES; k++)
        for (int64_t i = 0; i < r->arch.site[k].rows * r->arch.site[k].cols;
             i++) { /* many small, few large */
            float x = bq_f32(r->blk.w[k])[i];
            bq_f32(r->blk.w[k])[i] = 4 * x * x * x;
        }
}

/* Codes and what they stand for are those of fold, which is the block's weights. */
static void consistent(const char *what) {
    uint64_t was = rig_quantized_hash(r);
    for (int m = 0; m < RIG_SITES; m++)
        EXPECT(memcmp(r->q.fold[m].data, r->blk.w[m].data, bq_mat_bytes(r->q.fold[m])) == 0,
               "%s: fold %d is not the weights", what, m);
    bq_quantized_encode(&r->dev, &r->q);
    EXPECT(rig_quantized_hash(r) == was, "%s: codes are not those of fold", what);
}

typedef enum { RTN_MSE_2, RTN_MSE_24, HQQ, SEQMSE, LPBQ, SEQMSE_LPBQ, KINDS } kind;
static const char *const names[KINDS] = {"mse l2", "mse l2.4", "hqq", "seqmse", "lpbq", "seqmse lpbq"};

static void scribble(void) { /* nothing of a run before may be of use */
    bq_mat part[RIG_PARTS];
    for (int i = rig_quantized_parts(r, part) - 1; i >= 0; i--)
        if (part[i].data) memset(part[i].data, 0x5a, bq_mat_bytes(part[i]));
}

static void run(kind k, const bq_comm *on, int64_t samples) {
    bq_pass_context *c = &r->c;
    scribble();
    c->comm = on, c->samples = samples, c->grid = false;
    if (k == RTN_MSE_2) bq_pass_rtn_mse(c, (bq_shrink){100, 80, BQ_NORM_2});
    if (k == RTN_MSE_24) bq_pass_rtn_mse(c, (bq_shrink){100, 80, BQ_NORM_24});
    const struct {
        bq_quadratic o;
        int stop;
    } hqq = {
        {r->q.scheme[0].symmetric ? BQ_SOLVE_SCALE : BQ_SOLVE_ZERO, 20, 0.7, 10, 1.01, .early_stop = true},
        0};
    if (k == HQQ) bq_pass_kind_at(bq_pass_kind_find("hqq"))->run(c, &hqq);
    if (k == SEQMSE || k == SEQMSE_LPBQ) bq_pass_seqmse(c, &(bq_seqmse_options){20});
    c->grid = k == SEQMSE_LPBQ;
    if (k == LPBQ || k == SEQMSE_LPBQ) bq_pass_lpbq(c, 8);
}

static void same_bytes(int64_t samples, kind first, kind end) {
    for (int s = 0; s < SCHEMES; s++) {
        open_rig(s % 2 ? bq_family_find("phi3") : bq_family_find("llama"), schemes[s]);
        uint64_t seen[KINDS];
        for (kind k = first; k < end; k++) {
            if (!schemes[s].symmetric && k >= LPBQ) continue;
            run(k, &rig_alone, samples);
            seen[k] = rig_quantized_hash(r);
            consistent(names[k]);
            run(k, &comm, samples);
            EXPECT(rig_quantized_hash(r) == seen[k], "%s, scheme %d, %ld samples: other bytes", names[k], s,
                   (long)samples);
        }
        for (kind k = first + 1; k < end && (schemes[s].symmetric || k < LPBQ); k++)
            if (k < LPBQ || r->q.scale[0].rows > r->arch.linear[0].rows) /* without groups lpbq is rtn */
                EXPECT(seen[k] != seen[k - 1], "scheme %d: %s gives the bytes of %s", s, names[k],
                       names[k - 1]);
        rig_close(r);
    }
}

/* Squared error of a row of w, one group, on its grid. */
static double error_of(bq_mat w, bq_mat what, int64_t row) {
    double sum = 0;
    for (int64_t c = 0; c < w.cols; c++) {
        double d = (double)*(float *)bq_mat_at(what, row, c) - (double)*(float *)bq_mat_at(w, row, c);
        sum += d * d;
    }
    return sum;
}

/* Errors of all grids under rtn, then under a search by norm 2: none grew, and some shrank. */
static void clipping_is_no_loss(void) {
    for (int s = 0; s < SCHEMES; s++) {
        int64_t less = 0, at = 0;
        open_rig(bq_family_find("llama"), schemes[s]);
        double *before = calloc((size_t)bq_arch_weights(&r->arch), sizeof *before);
        if (!before) abort();
        for (int round = 0; round < 2; round++) {
            r->c.comm = &rig_alone, at = 0;
            if (round == 0) bq_pass_rtn(&r->c);
            if (round == 1) run(RTN_MSE_2, &rig_alone, 0);
            for (int i = 0; i < r->arch.linears; i++) {
                bq_mat w = bq_linear_grouped(&r->arch, r->q.scheme, i, r->blk.w),
                       what = bq_linear_grouped(&r->arch, r->q.scheme, i, r->q.w_hat);
                for (int64_t row = 0; row < w.rows; row++, at++) {
                    double e = error_of(w, what, row);
                    if (round == 0) before[at] = e;
                    if (round == 0) continue;
                    EXPECT(e <= before[at] * (1 + 1e-6), "scheme %d, %s, grid %ld: %g after %g", s,
                           r->arch.linear[i].name, (long)row, e, before[at]);
                    less += e < before[at] * 0.99;
                }
            }
        }
        EXPECT(less > at / 10, "scheme %d: %ld of %ld grids are better", s, (long)less, (long)at);
        free(before);
        rig_close(r);
    }
}

/* The least of 20 candidates against the last of them alone, which is min-max. */
static void seqmse_is_no_loss(void) {
    for (int s = 0; s < SCHEMES; s++) {
        int64_t less = 0, all = 0;
        open_rig(bq_family_find("llama"), schemes[s]);
        bq_gram_set every = {.sites = RIG_SITES};
        bq_gram gram;
        bq_pass_rtn(&r->c);
        r->c.comm = &rig_alone, r->c.samples = MOST;
        bq_gram_push(&gram, &r->arch, every, &r->dev.mem);
        bq_gram_collect(&r->c, r->blk.w, every, &gram);
        for (int i = 0; i < r->arch.linears; i++) {
            size_t mark = bq_arena_mark(&r->dev.mem);
            const bq_linear *l = &r->arch.linear[i];
            int64_t groups = bq_linear_groups(&r->arch, r->q.scheme, i),
                    rows = l->rows < BQ_SEARCH_SLAB ? l->rows : BQ_SEARCH_SLAB;
            bq_mat minmax = bq_arena_push(&r->dev.mem, rows * groups, 1, BQ_F64),
                   best = bq_arena_push(&r->dev.mem, rows * groups, 1, BQ_F64);
            float first = bq_f32(r->q.scale[i])[0];
            bq_seqmse_slab(&r->dev, &r->q, i, 0, rows, 1, gram.h[l->site], minmax);
            EXPECT(bq_f32(r->q.scale[i])[0] == first, "%s: one candidate is not min-max", l->name);
            bq_seqmse_slab(&r->dev, &r->q, i, 0, rows, 20, gram.h[l->site], best);
            for (int64_t row = 0; row < rows * groups; row++, all++) {
                double a = ((double *)minmax.data)[row], b = ((double *)best.data)[row];
                EXPECT(b <= a, "scheme %d, %s, grid %ld: %g after %g", s, l->name, (long)row, b, a);
                less += b < a * 0.99;
            }
            bq_arena_reset(&r->dev.mem, mark);
        }
        EXPECT(less > all / 10, "scheme %d: %ld of %ld grids are better", s, (long)less, (long)all);
        rig_close(r);
    }
}

/* Each row's scales are whole multiples of its unit, the largest divided by 2^(8 - bits); `decompressed` as
 * small as the bits leaves them alone. */
static void levels(void) {
    for (int s = 0; s < SCHEMES; s++) {
        if (!schemes[s].symmetric) continue;
        open_rig(bq_family_find("llama"), schemes[s]);
        r->c.comm = &rig_alone;
        bq_pass_rtn(&r->c);
        uint64_t plain = rig_quantized_hash(r);
        bq_pass_lpbq(&r->c, bq_code_bits(schemes[s]));
        EXPECT(rig_quantized_hash(r) == plain, "scheme %d: no bits more, and other scales", s);
        bq_pass_lpbq(&r->c, 8);
        for (int i = 0; i < r->arch.linears; i++) {
            int64_t groups = bq_linear_groups(&r->arch, r->q.scheme, i);
            for (int64_t row = 0; groups > 1 && row < r->arch.linear[i].rows; row++) {
                const float *scale = bq_f32(r->q.scale[i]) + row * groups;
                float top = 0;
                for (int64_t g = 0; g < groups; g++) top = scale[g] > top ? scale[g] : top;
                double unit = ldexp((double)top, bq_code_bits(schemes[s]) - 8);
                for (int64_t g = 0; g < groups; g++) {
                    double k = (double)scale[g] / unit;
                    EXPECT(k >= 1 && k == rint(k), "%s, row %ld: %g units", r->arch.linear[i].name, (long)row,
                           k);
                }
            }
        }
        rig_close(r);
    }
}

/* The plan's bytes are those taken, but for the scratch of ops, which the plan has elsewhere. */
static void need_is_exact(int64_t samples) {
    for (int s = 0; s < SCHEMES; s++) {
        open_rig(bq_family_find("llama"), schemes[s]);
        size_t before = rig_watch(r);
        run(SEQMSE, &comm, samples);
        size_t need = bq_seqmse_need(&r->arch, r->q.scheme, TOKENS, samples, comm.replica, comm.nreplica);
        EXPECT(r->dev.mem.used == before, "scheme %d: %zu bytes stay", s, r->dev.mem.used - before);
        EXPECT(rig_taken(r) >= need && rig_taken(r) <= need + bq_op_scratch(TOKENS, r->arch.attention, 1),
               "scheme %d, %ld samples: %zu bytes, planned %zu", s, (long)samples, rig_taken(r), need);
        rig_close(r);
    }
}

int main(int argc, char **argv) {
    int code = bq_comm_open(&comm, &argc, &argv);
    if (code) return code;
    same_bytes(MOST, 0, KINDS);
    same_bytes(3, SEQMSE, LPBQ); /* with four ranks one has none */
    need_is_exact(MOST);
    need_is_exact(3);
    if (comm.size == 1) clipping_is_no_loss(), seqmse_is_no_loss(), levels();
    return expect_end();
}
