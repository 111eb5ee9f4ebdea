/* SPDX-License-Identifier: Apache-2.0 */
/* mirror.c - an ops table that runs every op on the cpu, and on the cuda backend under the emulator, each
 * time on a fresh copy of the memory.  The results must be equal: bitwise where the op's class says so, else
 * within its limit; schedules always bitwise.  An op that equals the cpu's bits runs in one schedule a call,
 * others in two, the three schedules in turn; in all three with BQ_FULL=1.  A NaN equals a NaN: x86 makes it
 * with another sign and payload than a GPU does.  Programs of tests/ops that are linked with this file test
 * both backends with all their cases (ops_mirror in tests/ops/ops_common.h).  A process forked from such a
 * program has no GPU, and its ops run on the cpu alone.
 *
 * Matrices that overlap stay so: their memory is copied as one piece, gaps between columns included. */
#include "mirror.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum { MATS = 16, SCHEDULES = 3, DEVICE_BYTES = 24 << 20 };

typedef struct {
    char *host, *before, *first,
        *cpu; /* the memory itself; as it was; after cuda's first run; after the cpu's */
    size_t bytes;
    bq_mat device;
} piece;

struct mirror_run {
    const char *op;
    double limit;
    bq_mat *mat[MATS], view[MATS]; /* the op's arguments, and what they were */
    int mats, pieces, run, runs;   /* runs: the cpu's is 0 */
    unsigned turn;                 /* the schedule of run 1 */
    piece piece[MATS];
    bq_dev *test; /* the device that the test opened */
    bq_dev cpu;
};

void ops_mirror(bq_dev *dev); /* these three are what tests/ops has from here */
void ops_allow(double nmse);
bool ops_quick(void);

static mtx_t one_at_a_time;
static double allowed;
static bq_dev cuda;
static pid_t opener; /* the process whose device cuda is */

static void wrong(const mirror_run *r, const char *what) {
    fprintf(stderr, "%s: %s (run %d)\n", r->op, what, r->run);
    abort();
}

static void *keep(const void *from, size_t bytes) {
    void *p = malloc(bytes + 1);
    if (!p) abort();
    memcpy(p, from, bytes);
    return p;
}

bool ops_quick(void) {
    const char *full = getenv("BQ_FULL");
    return mirror_schedule && (!full || !atoi(full));
}

/* From here on ops that may differ from the cpu's by a limit may differ by this, where it is larger. */
void ops_allow(double nmse) { allowed = nmse; }

/* Pieces of memory that the matrices lie in. */
static void add_piece(mirror_run *r, char *from, size_t bytes) {
    char *end = from + bytes;
    for (int i = 0; i < r->pieces; i++) {
        piece *p = &r->piece[i];
        if (from >= p->host + p->bytes || end <= p->host) continue;
        if (p->host < from) from = p->host;
        if (p->host + p->bytes > end) end = p->host + p->bytes;
        *p = r->piece[--r->pieces];
        i = -1; /* the larger one may meet others */
    }
    r->piece[r->pieces++] = (piece){.host = from, .bytes = (size_t)(end - from)};
}

mirror_run *mirror_start(bq_dev *dev, const char *op, double limit, unsigned *calls, bq_mat **mats) {
    mtx_lock(&one_at_a_time);
    mirror_run *r = calloc(1, sizeof *r);
    if (!r) abort();
    if (limit > 0 && allowed > limit) limit = allowed;
    *r = (mirror_run){.op = op, .limit = limit, .test = dev, .cpu = *dev, .run = -1};
    r->cpu.op = &bq_ops_cpu;
    r->runs = 1 + (!ops_quick() ? SCHEDULES : limit > 0 ? 2 : 1);
    r->turn = (*calls)++ * 2654435761u >> 16; /* not in step with a test that calls the op thrice a case */
    for (; *mats; mats++) {
        if (!(*mats)->data) continue;
        r->mat[r->mats] = *mats;
        r->view[r->mats++] = **mats;
        if (bq_mat_bytes(**mats)) add_piece(r, (*mats)->data, bq_mat_bytes(**mats));
    }
    for (int i = 0; i < r->pieces; i++) r->piece[i].before = keep(r->piece[i].host, r->piece[i].bytes);
    return r;
}

static bq_mat bytes_of(void *data, size_t n) { return bq_mat_host(data, 1, (int64_t)n, BQ_U8); }

static void to_device(mirror_run *r) {
    for (int i = 0; i < r->pieces; i++) {
        piece *p = &r->piece[i];
        memcpy(p->host, p->before, p->bytes);
        p->device = bq_arena_push(&cuda.mem, 1, (int64_t)p->bytes, BQ_U8);
        cuda.op->put(&cuda, bytes_of(p->host, p->bytes), p->device);
    }
    for (int m = 0; m < r->mats; m++) {
        if (r->view[m].place == MIRROR_HOST) continue;
        r->mat[m]->place = BQ_DEVICE;
        r->mat[m]->data = cuda.mem.base; /* where it has no bytes */
        for (int i = 0; i < r->pieces; i++) {
            ptrdiff_t at = (char *)r->view[m].data - r->piece[i].host;
            if (at >= 0 && (size_t)at < r->piece[i].bytes)
                r->mat[m]->data = (char *)r->piece[i].device.data + at;
        }
    }
}

/* Memory that ops write on the host themselves has its results already. */
static bool on_host(const mirror_run *r, const piece *p) {
    for (int m = 0; m < r->mats; m++)
        if (r->view[m].place == MIRROR_HOST && (char *)r->view[m].data == p->host) return true;
    return false;
}

static void from_device(mirror_run *r) {
    for (int m = 0; m < r->mats; m++) *r->mat[m] = r->view[m];
    cuda.op->wait(&cuda);
    for (int i = 0; i < r->pieces; i++)
        if (!on_host(r, &r->piece[i]))
            cuda.op->get(&cuda, r->piece[i].device, bytes_of(r->piece[i].host, r->piece[i].bytes));
    if (cuda.mem.used > 0 && r->pieces == 0) wrong(r, "scratch is not given back");
    bq_arena_reset(&cuda.mem, 0);
    ASAN_POISON_MEMORY_REGION(cuda.mem.base,
                              cuda.mem.peak); /* everything has run: red zones for the next op */
    cuda.mem.peak = 0;
}

static double number(bq_mat m, int64_t row, int64_t col) {
    return m.type == BQ_F64 ? *(double *)bq_mat_at(m, row, col) : (double)*(float *)bq_mat_at(m, row, col);
}

/* How far the memory is from the cpu's, as seen by one matrix. */
static double distance(const mirror_run *r, const piece *p, bq_mat m) {
    double error = 0, power = 0;
    bq_mat want = m;
    want.data = p->cpu + ((char *)m.data - p->host);
    size_t n = bq_type_size(m.type);
    for (int64_t i = 0; i < m.rows; i++)
        for (int64_t j = 0; j < m.cols; j++) {
            if (memcmp(bq_mat_at(m, i, j), bq_mat_at(want, i, j), n) == 0) continue;
            if (m.type != BQ_F32 && m.type != BQ_F64) wrong(r, "whole numbers differ from the cpu's");
            double e = number(m, i, j) - number(want, i, j);
            error += e * e;
        }
    for (int64_t i = 0; error != 0 && i < m.rows; i++)
        for (int64_t j = 0; j < m.cols; j++) power += number(want, i, j) * number(want, i, j);
    return error == 0 ? 0 : error / power;
}

/* Every NaN of the matrices in the piece, as the same bits in what is a copy of it. */
static void one_nan(const mirror_run *r, const piece *p, char *copy) {
    for (int m = 0; m < r->mats; m++) {
        bq_mat v = r->view[m];
        ptrdiff_t at = (char *)v.data - p->host;
        if (at < 0 || (size_t)at >= p->bytes || (v.type != BQ_F32 && v.type != BQ_F64)) continue;
        v.data = copy + at;
        for (int64_t i = 0; i < v.rows; i++)
            for (int64_t j = 0; j < v.cols; j++)
                if (isnan(number(v, i, j))) memset(bq_mat_at(v, i, j), 0xff, bq_type_size(v.type));
    }
}

static bool equal(const mirror_run *r, const piece *p, char *other) {
    if (memcmp(p->host, other, p->bytes) == 0) return true;
    one_nan(r, p, p->host), one_nan(r, p, other);
    return memcmp(p->host, other, p->bytes) == 0;
}

static void compare(mirror_run *r) {
    for (int i = 0; i < r->pieces; i++) {
        piece *p = &r->piece[i];
        if (r->run == 0) p->cpu = keep(p->host, p->bytes);
        if (r->run == 1) p->first = keep(p->host, p->bytes);
        if (r->run > 1 && !equal(r, p, p->first)) wrong(r, "schedules differ");
        if (r->run != 1 || equal(r, p, p->cpu)) continue;
        if (r->limit == 0) wrong(r, "bits differ from the cpu's");
        for (int m = 0; m < r->mats; m++) {
            ptrdiff_t at = (char *)r->view[m].data - p->host;
            if (at < 0 || (size_t)at >= p->bytes) continue;
            double d = distance(r, p, r->view[m]);
            if (!(d <= r->limit)) {
                fprintf(stderr, "%s: argument %d: nmse %g\n", r->op, m, d);
                wrong(r, "beyond its limit");
            }
        }
    }
}

static void finish(mirror_run *r) {
    r->cpu.op = r->test->op;
    *r->test = r->cpu; /* the arena's peak */
    for (int i = 0; i < r->pieces; i++)
        free(r->piece[i].before), free(r->piece[i].cpu), free(r->piece[i].first);
    free(r);
    mtx_unlock(&one_at_a_time);
}

bq_dev *mirror_next(mirror_run *r) {
    if (r->run >= 1) from_device(r);
    if (r->run >= 0) compare(r);
    if (++r->run == r->runs) {
        finish(r);
        return NULL;
    }
    if (r->run == 0) return &r->cpu;
    if (!mirror_schedule && getpid() != opener) {
        finish(r);
        return NULL;
    }
    if (mirror_schedule) mirror_schedule((int)((r->turn + (unsigned)r->run) % SCHEDULES));
    cuda.compute = bq_dev_compute(&cuda, r->test->compute);
    to_device(r);
    return &cuda;
}

static void close_cuda(void) { bq_dev_close(&cuda); }

/* From here on the device computes as described above. */
void ops_mirror(bq_dev *dev) {
    static bq_ops both;
    if (!cuda.op) {
        both = mirror_ops();
        mtx_init(&one_at_a_time, mtx_plain);
        if (bq_dev_open(&cuda, "cuda", 0, DEVICE_BYTES) != BQ_OK) abort();
        opener = getpid();
        atexit(close_cuda);
    }
    dev->op = &both;
}
