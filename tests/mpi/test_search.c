/* Grid searches on as many replicas as mpirun gives: the bytes of one rank alone, consistent codes, and
 * errors that are never larger than those of the min-max grid.
 */
#include "base/hash.h"
#include "block/gram.h"
#include "block/search.h"
#include "expect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* gate and up have three slabs, the last one short; replicas beyond the third have none */
enum { MOST = 6, TOKENS = 11, H = 24, INTER = 528 };

static const bq_comm alone = {.size = 1, .nstage = 1, .nreplica = 1};
static struct {
    bq_dev dev;
    bq_arch arch;
    bq_block blk;
    bq_work work;
    bq_quantized q;
    bq_scheme scheme[BQ_ARCH_LINEARS];
    float stream[MOST][TOKENS * H];
    bq_pass_context c;
} rig;

static const bq_scheme schemes[] = {{4, -1, true, BQ_F32, BQ_GRID_AIMET},
                                    {4, 8, true, BQ_F32, BQ_GRID_AIMET},
                                    {3, -1, false, BQ_F16, BQ_GRID_AIMET},
                                    {2, 24, false, BQ_BF16, BQ_GRID_AIMET}};
#define SCHEMES ((int)(sizeof schemes / sizeof *schemes))

static float noise(uint64_t seed, uint32_t sample, uint32_t i) {
    uint32_t r[4];
    bq_philox((bq_rng_key){.seed = seed, .sample = sample}, i / 4, r);
    return (float)r[i % 4] / 4294967296.0f - 0.5f;
}

static bq_mat fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    (void)ctx, (void)stream;
    return bq_mat_host(rig.stream[sample], TOKENS, H, BQ_F32);
}

static void open_rig(bq_family family, bq_scheme scheme) {
    bq_model m = {.family = family,
                  .hidden = H,
                  .inter = INTER,
                  .vocab = 31,
                  .blocks = 2,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_dim = 6,
                  .eps = 1e-5,
                  .rope = {.dim = 6, .theta = 1e4, .attention = 1}};
    bq_arch_of(&m, &rig.arch);
    if (bq_dev_open(&rig.dev, "cpu", 1, (size_t)32 << 20)) abort();
    for (int i = 0; i < rig.arch.linears; i++) rig.scheme[i] = scheme;
    bq_block_push(&rig.blk, &rig.arch, &rig.dev.mem);
    bq_work_push(&rig.work, &rig.arch, TOKENS, false, &rig.dev.mem);
    bq_quantized_push(&rig.q, &rig.arch, rig.scheme, &rig.dev.mem);
    for (int k = 0; k < BQ_MATS; k++)
        for (int64_t i = 0; i < rig.arch.rows[k] * rig.arch.cols[k]; i++) { /* many small, few large */
            float x = noise(1, (uint32_t)k, (uint32_t)i);
            bq_f32(rig.blk.w[k])[i] = 4 * x * x * x;
        }
    for (int i = 0; i < 2 * H; i++) bq_f32(rig.blk.norm[i / H])[i % H] = 1;
    for (int i = 0; i < TOKENS * 3; i++)
        bq_f32(rig.work.cos)[i] = cosf((float)i * 0.1f), bq_f32(rig.work.sin)[i] = sinf((float)i * 0.1f);
    for (uint32_t s = 0; s < MOST; s++)
        for (uint32_t i = 0; i < TOKENS * H; i++) rig.stream[s][i] = noise(2, s, i);
    rig.c = (bq_pass_context){.dev = &rig.dev,
                              .blk = &rig.blk,
                              .work = &rig.work,
                              .q = &rig.q,
                              .tokens = TOKENS,
                              .input = BQ_INPUTS_QT,
                              .fetch = fetch};
}

static uint64_t result(void) {
    bq_hash *h = bq_hash_open();
    for (int m = 0; m < BQ_MATS; m++) {
        bq_hash_add(h, rig.q.fold[m].data, bq_mat_bytes(rig.q.fold[m]));
        bq_hash_add(h, rig.q.code[m].data, bq_mat_bytes(rig.q.code[m]));
        bq_hash_add(h, rig.q.what[m].data, bq_mat_bytes(rig.q.what[m]));
    }
    for (int i = 0; i < rig.arch.linears; i++) {
        bq_hash_add(h, rig.q.scale[i].data, bq_mat_bytes(rig.q.scale[i]));
        if (rig.q.zero[i].data) bq_hash_add(h, rig.q.zero[i].data, bq_mat_bytes(rig.q.zero[i]));
    }
    return bq_hash_close(h);
}

/* Codes and what they stand for are those of fold, which is the block's weights. */
static void consistent(const char *what) {
    uint64_t was = result();
    for (int m = 0; m < BQ_MATS; m++)
        EXPECT(memcmp(rig.q.fold[m].data, rig.blk.w[m].data, bq_mat_bytes(rig.q.fold[m])) == 0,
               "%s: fold %d is not the weights", what, m);
    bq_quantized_encode(&rig.dev, &rig.q);
    EXPECT(result() == was, "%s: codes are not those of fold", what);
}

typedef enum { RTN_MSE_2, RTN_MSE_24, HQQ, SEQMSE, LPBQ, SEQMSE_LPBQ, KINDS } kind;
static const char *const names[KINDS] = {"mse l2", "mse l2.4", "hqq", "seqmse", "lpbq", "seqmse lpbq"};

static void scribble(void) { /* nothing of a run before may be of use */
    for (int m = 0; m < BQ_MATS; m++) {
        memset(rig.q.fold[m].data, 0x5a, bq_mat_bytes(rig.q.fold[m]));
        memset(rig.q.what[m].data, 0x5a, bq_mat_bytes(rig.q.what[m]));
        memset(rig.q.code[m].data, 0x5a, bq_mat_bytes(rig.q.code[m]));
    }
    for (int i = 0; i < rig.arch.linears; i++) {
        memset(rig.q.scale[i].data, 0x5a, bq_mat_bytes(rig.q.scale[i]));
        if (rig.q.zero[i].data) memset(rig.q.zero[i].data, 0x5a, bq_mat_bytes(rig.q.zero[i]));
    }
}

static void run(kind k, const bq_comm *on, int64_t samples) {
    bq_pass_context *c = &rig.c;
    scribble();
    c->comm = on, c->samples = samples, c->grid = false;
    if (k == RTN_MSE_2) bq_pass_rtn_mse(c, (bq_shrink){100, 80, BQ_NORM_2});
    if (k == RTN_MSE_24) bq_pass_rtn_mse(c, (bq_shrink){100, 80, BQ_NORM_24});
    if (k == HQQ)
        bq_pass_kind_at(bq_pass_kind_find("hqq"))
            ->run(c, &(bq_quadratic){rig.scheme[0].symmetric ? BQ_SOLVE_SCALE : BQ_SOLVE_ZERO, 20, 0.7, 10,
                                     1.01, .early_stop = true});
    if (k == SEQMSE || k == SEQMSE_LPBQ) bq_pass_seqmse(c, &(bq_seqmse_options){20});
    c->grid = k == SEQMSE_LPBQ;
    if (k == LPBQ || k == SEQMSE_LPBQ) bq_pass_lpbq(c, 8);
}

static void same_bytes(int64_t samples, kind first, kind end) {
    for (int s = 0; s < SCHEMES; s++) {
        open_rig(s % 2 ? BQ_PHI3 : BQ_LLAMA, schemes[s]);
        uint64_t seen[KINDS];
        for (kind k = first; k < end; k++) {
            if (!schemes[s].symmetric && k >= LPBQ) continue;
            run(k, &alone, samples);
            seen[k] = result();
            consistent(names[k]);
            run(k, &comm, samples);
            EXPECT(result() == seen[k], "%s, scheme %d, %ld samples: other bytes", names[k], s,
                   (long)samples);
        }
        for (kind k = first + 1; k < end && (schemes[s].symmetric || k < LPBQ); k++)
            if (k < LPBQ || rig.q.scale[0].rows > rig.arch.linear[0].rows) /* without groups lpbq is rtn */
                EXPECT(seen[k] != seen[k - 1], "scheme %d: %s gives the bytes of %s", s, names[k],
                       names[k - 1]);
        bq_dev_close(&rig.dev);
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
        open_rig(BQ_LLAMA, schemes[s]);
        double *before = calloc((size_t)bq_arch_weights(&rig.arch), sizeof *before);
        if (!before) abort();
        for (int round = 0; round < 2; round++) {
            rig.c.comm = &alone, at = 0;
            if (round == 0) bq_pass_rtn(&rig.c);
            if (round == 1) run(RTN_MSE_2, &alone, 0);
            for (int i = 0; i < rig.arch.linears; i++) {
                bq_mat w = bq_linear_grouped(&rig.arch, rig.scheme, i, rig.blk.w),
                       what = bq_linear_grouped(&rig.arch, rig.scheme, i, rig.q.what);
                for (int64_t r = 0; r < w.rows; r++, at++) {
                    double e = error_of(w, what, r);
                    if (round == 0) before[at] = e;
                    if (round == 0) continue;
                    EXPECT(e <= before[at] * (1 + 1e-6), "scheme %d, %s, grid %ld: %g after %g", s,
                           rig.arch.linear[i].name, (long)r, e, before[at]);
                    less += e < before[at] * 0.99;
                }
            }
        }
        EXPECT(less > at / 10, "scheme %d: %ld of %ld grids are better", s, (long)less, (long)at);
        free(before);
        bq_dev_close(&rig.dev);
    }
}

/* The least of 20 candidates against the last of them alone, which is min-max. */
static void seqmse_is_no_loss(void) {
    for (int s = 0; s < SCHEMES; s++) {
        int64_t less = 0, all = 0;
        open_rig(BQ_LLAMA, schemes[s]);
        bq_gram_set every = {.which = BQ_ALL_MATS};
        bq_gram gram;
        bq_pass_rtn(&rig.c);
        rig.c.comm = &alone, rig.c.samples = MOST;
        bq_gram_push(&gram, &rig.arch, every, &rig.dev.mem);
        bq_gram_collect(&rig.c, rig.blk.w, every, &gram);
        for (int i = 0; i < rig.arch.linears; i++) {
            size_t mark = bq_arena_mark(&rig.dev.mem);
            const bq_linear *l = &rig.arch.linear[i];
            int64_t groups = bq_linear_groups(&rig.arch, rig.scheme, i),
                    rows = l->rows < BQ_SEARCH_SLAB ? l->rows : BQ_SEARCH_SLAB;
            bq_mat minmax = bq_arena_push(&rig.dev.mem, rows * groups, 1, BQ_F64),
                   best = bq_arena_push(&rig.dev.mem, rows * groups, 1, BQ_F64);
            float first = bq_f32(rig.q.scale[i])[0];
            bq_seqmse_slab(&rig.dev, &rig.q, i, 0, rows, 1, gram.h[l->mat], minmax);
            EXPECT(bq_f32(rig.q.scale[i])[0] == first, "%s: one candidate is not min-max", l->name);
            bq_seqmse_slab(&rig.dev, &rig.q, i, 0, rows, 20, gram.h[l->mat], best);
            for (int64_t r = 0; r < rows * groups; r++, all++) {
                double a = ((double *)minmax.data)[r], b = ((double *)best.data)[r];
                EXPECT(b <= a, "scheme %d, %s, grid %ld: %g after %g", s, l->name, (long)r, b, a);
                less += b < a * 0.99;
            }
            bq_arena_reset(&rig.dev.mem, mark);
        }
        EXPECT(less > all / 10, "scheme %d: %ld of %ld grids are better", s, (long)less, (long)all);
        bq_dev_close(&rig.dev);
    }
}

/* Each row's scales are whole multiples of its unit, the largest divided by 2^(8 - bits); `decompressed` as
 * small as the bits leaves them alone. */
static void levels(void) {
    for (int s = 0; s < SCHEMES; s++) {
        if (!schemes[s].symmetric) continue;
        open_rig(BQ_LLAMA, schemes[s]);
        rig.c.comm = &alone;
        bq_pass_rtn(&rig.c);
        uint64_t plain = result();
        bq_pass_lpbq(&rig.c, schemes[s].bits);
        EXPECT(result() == plain, "scheme %d: no bits more, and other scales", s);
        bq_pass_lpbq(&rig.c, 8);
        for (int i = 0; i < rig.arch.linears; i++) {
            int64_t groups = bq_linear_groups(&rig.arch, rig.scheme, i);
            for (int64_t r = 0; groups > 1 && r < rig.arch.linear[i].rows; r++) {
                const float *scale = bq_f32(rig.q.scale[i]) + r * groups;
                float top = 0;
                for (int64_t g = 0; g < groups; g++) top = scale[g] > top ? scale[g] : top;
                double unit = ldexp((double)top, schemes[s].bits - 8);
                for (int64_t g = 0; g < groups; g++) {
                    double k = (double)scale[g] / unit;
                    EXPECT(k >= 1 && k == rint(k), "%s, row %ld: %g units", rig.arch.linear[i].name, (long)r,
                           k);
                }
            }
        }
        bq_dev_close(&rig.dev);
    }
}

/* The plan's bytes are those taken, but for the scratch of ops, which the plan has elsewhere. */
static void need_is_exact(int64_t samples) {
    for (int s = 0; s < SCHEMES; s++) {
        open_rig(BQ_LLAMA, schemes[s]);
        size_t before = rig.dev.mem.used;
        rig.dev.mem.peak = before;
        run(SEQMSE, &comm, samples);
        size_t need = bq_seqmse_need(&rig.arch, rig.scheme, TOKENS, samples, comm.replica, comm.nreplica);
        EXPECT(rig.dev.mem.used == before, "scheme %d: %zu bytes stay", s, rig.dev.mem.used - before);
        EXPECT(rig.dev.mem.peak >= before + need &&
                   rig.dev.mem.peak <= before + need + bq_op_scratch(TOKENS, rig.arch.attention, 1),
               "scheme %d, %ld samples: %zu bytes, planned %zu", s, (long)samples, rig.dev.mem.peak - before,
               need);
        bq_dev_close(&rig.dev);
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
