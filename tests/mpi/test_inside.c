/* SPDX-License-Identifier: Apache-2.0 */
/* Training stopped after any step and gone on with, on any number of replicas: the result, the losses and
 * what is kept are those of a single rank that nobody disturbed.
 */
#include "../rig.h"
#include "base/shard.h"
#include "block/passes/train.h"
#include "block/passes/midblock.h"
#include "expect.h"

enum { SAMPLES = 6, TOKENS = 11, H = 24, STEPS = 7 };

/* What a keeper kept, in memory. */
typedef struct {
    int64_t step;
    double previous, losses[STEPS];
    float *part[BQ_TRAIN_PARTS_MAX];
    size_t bytes[BQ_TRAIN_PARTS_MAX];
} kept;

static rig *r;
static int number;
static const bq_train_kind *kind = &bq_train_adascale;
static struct {
    int64_t at, stop_at, due_at; /* steps done; when to stop, to keep; 0: never */
    volatile sig_atomic_t stop;
    kept *from, *to; /* what to go on from; where to keep */
} now;

/* A signal reaches one rank, while the step before the last is on its way. */
static void hear(void) {
    if (now.stop_at == now.at + 1 && r->c.comm->replica == r->c.comm->nreplica - 1) now.stop = 1;
}

static void count(void *ctx, int64_t step, int64_t steps, double loss) {
    (void)ctx, (void)loss;
    EXPECT(step == now.at + 1 && steps == STEPS, "step %ld after %ld", (long)step, (long)now.at);
    now.at = step;
    hear();
}

static bool due(void *ctx) {
    (void)ctx;
    EXPECT(r->c.comm->replica == 0, "replica %d was asked", r->c.comm->replica);
    return now.due_at == now.at + 1;
}

static void save(void *ctx, bq_train_state *s, bool stop) {
    kept *to = now.to;
    (void)ctx;
    EXPECT(stop == (s->step == now.stop_at), "step %ld: stop is %d", (long)s->step, stop);
    EXPECT(s->step == now.at, "state of step %ld at %ld", (long)s->step, (long)now.at);
    to->step = s->step, to->previous = s->previous;
    memcpy(to->losses, s->losses, (size_t)s->step * sizeof(double));
    for (int p = 0; p < bq_train_parts(kind, &r->q); p++) {
        char name[32];
        bq_mat shape = bq_train_part(kind, &r->q, p, name), m = bq_train_gather(s, p);
        EXPECT(m.rows == shape.rows && m.cols == shape.cols && m.ld == m.cols, "%s is %ld x %ld", name,
               (long)m.rows, (long)m.cols);
        to->bytes[p] = bq_mat_bytes(m);
        to->part[p] = realloc(to->part[p], to->bytes[p]);
        if (!to->part[p]) abort();
        memcpy(to->part[p], m.data, to->bytes[p]);
    }
}

static bool restore(void *ctx, bq_train_state *s) {
    const kept *from = now.from;
    (void)ctx;
    if (!from) return false;
    s->step = now.at = from->step, s->previous = from->previous;
    memcpy(s->losses, from->losses, (size_t)from->step * sizeof(double));
    for (int p = 0; p < bq_train_parts(kind, &r->q); p++) {
        int64_t first;
        bq_mat room = bq_train_room(s, p, &first);
        if (room.rows) memcpy(room.data, from->part[p] + first * room.cols, bq_mat_bytes(room));
        bq_train_take(s, p);
    }
    hear();
    return true;
}

/* Rows of one, three and many groups in the same matrix; with `zeros` some have zero points. */
static void open_rig(bool zeros) {
    const bq_scheme scheme[] = {{.element = 4, .group = -1, .symmetric = true, .rows = 1},
                                {.element = 4, .group = 8, .symmetric = !zeros, .rows = 1},
                                {.element = 4,
                                 .group = zeros ? 4 : 1,
                                 .symmetric = true,
                                 .grid = zeros ? BQ_GRID_ABSMAX : 0,
                                 .rows = 1}};
    r = rig_open(&(rig_spec){.model = {bq_family_find("llama"), H, 40, .heads = 4, .kv_heads = 2},
                             .scheme = scheme,
                             .schemes = 3,
                             .samples = SAMPLES,
                             .tokens = TOKENS,
                             .noise = {2, 3, 4},
                             .steps = STEPS});
    r->c.input = BQ_INPUTS_MIX, r->c.mix = 0.5;
    r->c.step = count, r->c.stop = &now.stop;
}

typedef struct {
    int64_t rc;
    uint64_t result, losses; /* hashes, of a pass that came to its end */
} outcome;

static outcome train(const bq_comm *on, const bq_train_options *o, kept *from, kept *to, int64_t stop_at,
                     int64_t due_at) {
    bq_keeper keeper = {NULL, due, save, restore};
    now.from = from, now.to = to, now.stop_at = stop_at, now.due_at = due_at;
    now.at = now.stop = 0;
    memset(r->c.losses, 0, STEPS * sizeof(double));
    r->c.comm = on, r->c.keeper = &keeper;
    hear();
    outcome out = {.rc = bq_train(&r->c, kind, o)};
    if (out.rc < 0) return out;
    out.result = rig_quantized_hash(r);
    out.losses = bq_hash_bytes(r->c.losses, (size_t)out.rc * sizeof(double));
    return out;
}

static bool equal(const kept *a, const kept *b) {
    bool same = a->step == b->step && memcmp(&a->previous, &b->previous, sizeof a->previous) == 0 &&
                memcmp(a->losses, b->losses, (size_t)a->step * sizeof(double)) == 0;
    for (int p = 0; p < bq_train_parts(kind, &r->q); p++)
        same = same && a->bytes[p] == b->bytes[p] && memcmp(a->part[p], b->part[p], a->bytes[p]) == 0;
    return same;
}

static void check(const char *what, int64_t k, outcome have, outcome want) {
    EXPECT(have.rc == want.rc && have.result == want.result && have.losses == want.losses,
           "%s, kind %d, step %ld: %ld steps%s", what, number, (long)k, (long)have.rc,
           have.rc == want.rc ? ", another result" : "");
}

static int64_t stops_and_goes_on(const bq_train_options *o) {
    static kept one, all;
    static int turn;
    outcome want = train(&rig_alone, o, NULL, NULL, 0, 0), stopped = {.rc = BQ_PASS_STOPPED};
    check("undisturbed", 0, train(&comm, o, NULL, NULL, 0, 0), want);
    for (int64_t k = 1; k < want.rc; k++) {
        if (turn++ % 3) continue; /* each option meets every third step, all of them together each one */
        check("stopped", k, train(&rig_alone, o, NULL, &one, k, 0), stopped);
        check("stopped", k, train(&comm, o, NULL, &all, k, 0), stopped);
        EXPECT(all.step == k && equal(&one, &all), "step %ld: %d replicas keep other bytes", (long)k,
               comm.nreplica);
        check("gone on", k, train(&comm, o, &all, NULL, 0, 0), want);
        check("gone on with one", k, train(&rig_alone, o, &all, NULL, 0, 0), want);
        check("kept", k, train(&comm, o, NULL, &all, 0, k), want);
        EXPECT(equal(&one, &all), "step %ld: kept in passing are other bytes", (long)k);
        if (k + 1 < want.rc) { /* and once more, one step on */
            check("stopped again", k, train(&comm, o, &one, &all, k + 1, 0), stopped);
            check("gone on twice", k, train(&rig_alone, o, &all, NULL, 0, 0), want);
        }
    }
    all.step = -1; /* what is at its end is not kept */
    check("stopped at the end", want.rc, train(&comm, o, NULL, &all, want.rc, want.rc), want);
    EXPECT(all.step == -1, "the end was kept");
    for (int p = 0; p < bq_train_parts(kind, &r->q); p++) {
        free(one.part[p]), free(all.part[p]);
        one.part[p] = all.part[p] = NULL;
    }
    return want.rc;
}

/* The other kinds of trainings; one of them keeps the values of its best step. */
static void others(void) {
    const bq_train_kind *const all[] = {&bq_train_autoround, &bq_train_omniquant, &bq_train_qat[0][0],
                                        &bq_train_qat[0][1], &bq_train_qat[1][0], &bq_train_qat[1][1]};
    open_rig(true);
    for (int k = 0; k < 6; k++) {
        bq_train_options o = {.iterations = STEPS, .batch = 3, .lr_clip = 1e-2, .lr_weight = 2e-2};
        if (k > 1) o.lr_clip = 1e-3, o.lr_weight = 1e-3, o.momentum = 0.9, o.decay = 0.01;
        kind = all[k], number = k + 1;
        EXPECT(stops_and_goes_on(&o) == STEPS, "all steps of kind %d are done", k);
    }
    rig_close(r);
}

int main(int argc, char **argv) {
    int code = bq_comm_open(&comm, &argc, &argv);
    if (code) return code;
    open_rig(false);
    for (int64_t batch = 1; batch <= SAMPLES; batch++) {
        bq_train_options o = {.iterations = STEPS, .batch = batch, .lr_clip = 1e-2, .lr_weight = 1e-2};
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
    rig_close(r);
    others();
    return expect_end();
}
