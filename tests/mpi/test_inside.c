/* Training stopped after any step and gone on with, on any number of replicas: the result, the losses and
 * what is kept are those of a single rank that nobody disturbed.
 */
#include "base/hash.h"
#include "base/shard.h"
#include "block/adascale.h"
#include "block/inside.h"
#include "expect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 6, TOKENS = 11, H = 24, STEPS = 7 };

static const bq_comm alone = {.size = 1, .nstage = 1, .nreplica = 1};
/* What a keeper kept, in memory. */
typedef struct {
    int64_t step;
    double previous, losses[STEPS];
    float *part[BQ_ADASCALE_PARTS];
    size_t bytes[BQ_ADASCALE_PARTS];
} kept;

static struct {
    bq_dev dev;
    bq_arch arch;
    bq_block blk;
    bq_work work;
    bq_quantized q;
    bq_scheme scheme[BQ_ARCH_LINEARS];
    float stream[3][SAMPLES][TOKENS * H];
    double losses[STEPS], batch[SAMPLES + 2];
    const bq_comm *comm;
    int64_t at, stop_at, due_at; /* steps done; when to stop, to keep; 0: never */
    volatile sig_atomic_t stop;
    kept *from, *to; /* what to go on from; where to keep */
} rig;

static float noise(uint64_t seed, uint32_t sample, uint32_t i) {
    uint32_t r[4];
    bq_philox((bq_rng_key){.seed = seed, .sample = sample}, i / 4, r);
    return (float)r[i % 4] / 4294967296.0f - 0.5f;
}

static bq_mat fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    (void)ctx;
    return bq_mat_host(rig.stream[stream][sample], TOKENS, H, BQ_F32);
}

/* A signal reaches one rank, while the step before the last is on its way. */
static void hear(void) {
    if (rig.stop_at == rig.at + 1 && rig.comm->replica == rig.comm->nreplica - 1) rig.stop = 1;
}

static void count(void *ctx, int64_t step, int64_t steps, double loss) {
    (void)ctx, (void)loss;
    EXPECT(step == rig.at + 1 && steps == STEPS, "step %ld after %ld", (long)step, (long)rig.at);
    rig.at = step;
    hear();
}

static bool due(void *ctx) {
    (void)ctx;
    EXPECT(rig.comm->replica == 0, "replica %d was asked", rig.comm->replica);
    return rig.due_at == rig.at + 1;
}

static void save(void *ctx, bq_adascale_state *s, bool stop) {
    kept *to = rig.to;
    (void)ctx;
    EXPECT(stop == (s->step == rig.stop_at), "step %ld: stop is %d", (long)s->step, stop);
    EXPECT(s->step == rig.at, "state of step %ld at %ld", (long)s->step, (long)rig.at);
    to->step = s->step, to->previous = s->previous;
    memcpy(to->losses, s->losses, (size_t)s->step * sizeof(double));
    for (int p = 0; p < BQ_ADASCALE_PARTS; p++) {
        char name[32];
        bq_mat shape = bq_adascale_part(&rig.q, p, name), m = bq_adascale_gather(s, p);
        EXPECT(m.rows == shape.rows && m.cols == shape.cols && m.ld == m.cols, "%s is %ld x %ld", name,
               (long)m.rows, (long)m.cols);
        to->bytes[p] = bq_mat_bytes(m);
        to->part[p] = realloc(to->part[p], to->bytes[p]);
        if (!to->part[p]) abort();
        memcpy(to->part[p], m.data, to->bytes[p]);
    }
}

static bool restore(void *ctx, bq_adascale_state *s) {
    const kept *from = rig.from;
    (void)ctx;
    if (!from) return false;
    s->step = rig.at = from->step, s->previous = from->previous;
    memcpy(s->losses, from->losses, (size_t)from->step * sizeof(double));
    for (int p = 0; p < BQ_ADASCALE_PARTS; p++) {
        int64_t first;
        bq_mat room = bq_adascale_room(s, p, &first);
        if (room.rows) memcpy(room.data, from->part[p] + first * room.cols, bq_mat_bytes(room));
        bq_adascale_take(s, p);
    }
    hear();
    return true;
}

static void open_rig(void) {
    bq_model m = {.family = BQ_LLAMA,
                  .hidden = H,
                  .inter = 40,
                  .vocab = 31,
                  .blocks = 2,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_dim = 6,
                  .eps = 1e-5,
                  .rope = {.dim = 6, .theta = 1e4, .attention = 1}};
    bq_arch_of(&m, &rig.arch);
    if (bq_dev_open(&rig.dev, "cpu", 1, (size_t)16 << 20)) abort();
    for (int i = 0; i < rig.arch.linears; i++) /* rows of one, three and many groups in the same matrix */
        rig.scheme[i] = (bq_scheme){4, (const int64_t[]){-1, 8, 1}[i % 3], true, BQ_F32, BQ_GRID_AIMET};
    bq_block_push(&rig.blk, &rig.arch, &rig.dev.mem);
    bq_work_push(&rig.work, &rig.arch, TOKENS, true, &rig.dev.mem);
    bq_quantized_push(&rig.q, &rig.arch, rig.scheme, &rig.dev.mem);
    for (int k = 0; k < BQ_MATS; k++)
        for (int64_t i = 0; i < rig.arch.rows[k] * rig.arch.cols[k]; i++)
            bq_f32(rig.blk.w[k])[i] = noise(1, (uint32_t)k, (uint32_t)i);
    for (int i = 0; i < 2 * H; i++) bq_f32(rig.blk.norm[i / H])[i % H] = 1;
    for (int i = 0; i < TOKENS * 3; i++)
        bq_f32(rig.work.cos)[i] = cosf((float)i * 0.1f), bq_f32(rig.work.sin)[i] = sinf((float)i * 0.1f);
    for (int k = 0; k < 3; k++)
        for (uint32_t s = 0; s < SAMPLES; s++)
            for (uint32_t i = 0; i < TOKENS * H; i++) rig.stream[k][s][i] = noise(2 + (uint64_t)k, s, i);
}

typedef struct {
    int64_t rc;
    uint64_t result; /* of a pass that came to its end: codes, scales, folded weights, losses */
} outcome;

static outcome train(const bq_comm *on, const bq_adascale_options *o, kept *from, kept *to, int64_t stop_at,
                     int64_t due_at) {
    bq_keeper keeper = {NULL, due, save, restore};
    rig.comm = on, rig.from = from, rig.to = to, rig.stop_at = stop_at, rig.due_at = due_at;
    rig.at = rig.stop = 0;
    memset(rig.losses, 0, sizeof rig.losses);
    hear();
    bq_pass_context c = {.dev = &rig.dev,
                         .blk = &rig.blk,
                         .work = &rig.work,
                         .q = &rig.q,
                         .comm = on,
                         .samples = SAMPLES,
                         .tokens = TOKENS,
                         .batch = rig.batch,
                         .input = BQ_INPUTS_MIX,
                         .mix = 0.5,
                         .at = {.seed = 7, .block = 1},
                         .fetch = fetch,
                         .step = count,
                         .stop = &rig.stop,
                         .losses = rig.losses,
                         .keeper = &keeper};
    outcome out = {.rc = bq_pass_adascale(&c, o)};
    if (out.rc < 0) return out;
    bq_hash *h = bq_hash_open();
    for (int m = 0; m < BQ_MATS; m++) {
        bq_hash_add(h, rig.q.fold[m].data, bq_mat_bytes(rig.q.fold[m]));
        bq_hash_add(h, rig.q.code[m].data, bq_mat_bytes(rig.q.code[m]));
    }
    for (int i = 0; i < rig.arch.linears; i++)
        bq_hash_add(h, rig.q.scale[i].data, bq_mat_bytes(rig.q.scale[i]));
    bq_hash_add(h, rig.losses, (size_t)out.rc * sizeof(double));
    out.result = bq_hash_close(h);
    return out;
}

static bool equal(const kept *a, const kept *b) {
    bool same = a->step == b->step && memcmp(&a->previous, &b->previous, sizeof a->previous) == 0 &&
                memcmp(a->losses, b->losses, (size_t)a->step * sizeof(double)) == 0;
    for (int p = 0; p < BQ_ADASCALE_PARTS; p++)
        same = same && a->bytes[p] == b->bytes[p] && memcmp(a->part[p], b->part[p], a->bytes[p]) == 0;
    return same;
}

static void check(const char *what, int64_t k, outcome have, outcome want) {
    EXPECT(have.rc == want.rc && have.result == want.result, "%s, step %ld: %ld steps%s", what, (long)k,
           (long)have.rc, have.rc == want.rc ? ", another result" : "");
}

static int64_t stops_and_goes_on(const bq_adascale_options *o) {
    static kept one, all;
    static int turn;
    outcome want = train(&alone, o, NULL, NULL, 0, 0), stopped = {BQ_PASS_STOPPED, 0};
    check("undisturbed", 0, train(&comm, o, NULL, NULL, 0, 0), want);
    for (int64_t k = 1; k < want.rc; k++) {
        if (turn++ % 3) continue; /* each option meets every third step, all of them together each one */
        check("stopped", k, train(&alone, o, NULL, &one, k, 0), stopped);
        check("stopped", k, train(&comm, o, NULL, &all, k, 0), stopped);
        EXPECT(all.step == k && equal(&one, &all), "step %ld: %d replicas keep other bytes", (long)k,
               comm.nreplica);
        check("gone on", k, train(&comm, o, &all, NULL, 0, 0), want);
        check("gone on with one", k, train(&alone, o, &all, NULL, 0, 0), want);
        check("kept", k, train(&comm, o, NULL, &all, 0, k), want);
        EXPECT(equal(&one, &all), "step %ld: kept in passing are other bytes", (long)k);
        if (k + 1 < want.rc) { /* and once more, one step on */
            check("stopped again", k, train(&comm, o, &one, &all, k + 1, 0), stopped);
            check("gone on twice", k, train(&alone, o, &all, NULL, 0, 0), want);
        }
    }
    all.step = -1; /* what is at its end is not kept */
    check("stopped at the end", want.rc, train(&comm, o, NULL, &all, want.rc, want.rc), want);
    EXPECT(all.step == -1, "the end was kept");
    for (int p = 0; p < BQ_ADASCALE_PARTS; p++) {
        free(one.part[p]), free(all.part[p]);
        one.part[p] = all.part[p] = NULL;
    }
    return want.rc;
}

int main(int argc, char **argv) {
    int code = bq_comm_open(&comm, &argc, &argv);
    if (code) return code;
    open_rig();
    for (int64_t batch = 1; batch <= SAMPLES; batch++) {
        bq_adascale_options o = {.iterations = STEPS, .batch = batch, .lr_clip = 1e-2, .lr_weight = 1e-2};
        if (SAMPLES % batch) continue;
        EXPECT(stops_and_goes_on(&o) == STEPS, "all steps are done");
        o.early_stop = true, o.check_interval = 2, o.window = 3;
        o.threshold = -10; /* never flat, but remembered */
        EXPECT(stops_and_goes_on(&o) == STEPS, "all steps are done");
        o.threshold = 10; /* flat as soon as there are more losses than the window */
        EXPECT(stops_and_goes_on(&o) == 4, "an early stop");
        o.anneal = 0.25; /* its rates fall in one more step, which a later process knows of */
        EXPECT(stops_and_goes_on(&o) == 5, "an early stop that anneals");
    }
    bq_dev_close(&rig.dev);
    return expect_end();
}
