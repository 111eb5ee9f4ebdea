/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/reader.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/meter.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct bq_reader {
    bq_acts *acts;
    int64_t first, count;
    int depth;
    size_t size; /* floats of a sample */
    float *ring;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int64_t have, taken; /* samples read; samples given to the caller, who may still read the last one */
    bool bad, stop, threaded;
    double stalled;
};

static void *read_ahead(void *ctx) {
    bq_reader *r = ctx;
    pthread_mutex_lock(&r->lock);
    while (r->have < r->count && !r->bad) {
        while (!r->stop && r->have - r->taken >= r->depth - 1) pthread_cond_wait(&r->moved, &r->lock);
        if (r->stop) break;
        int64_t at = r->have;
        pthread_mutex_unlock(&r->lock);
        bool good = bq_acts_read(r->acts, r->first + at, r->ring + (size_t)(at % r->depth) * r->size);
        pthread_mutex_lock(&r->lock);
        r->have += good, r->bad = !good;
        pthread_cond_broadcast(&r->moved);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

bq_reader *bq_reader_open(bq_acts *acts, int64_t values, int64_t first, int64_t count, int depth) {
    BQ_CHECK(depth >= 2, "a ring of %d samples", depth);
    bq_reader *r = calloc(1, sizeof *r);
    BQ_CHECK(r, "no memory for a reader");
    *r = (bq_reader){.acts = acts, .first = first, .count = count, .depth = depth, .size = (size_t)values};
    r->threaded = !bq_acts_joined(acts);
    r->ring = malloc((size_t)depth * r->size * sizeof *r->ring);
    BQ_CHECK(r->ring, "no memory for a ring of %d samples", depth);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->moved, &clock);
    pthread_condattr_destroy(&clock);
    int error = 0;
    if (r->threaded)
        error = bq_fault("reader_thread") ? EAGAIN : pthread_create(&r->thread, NULL, read_ahead, r);
    BQ_CHECK(error == 0, "no thread to read ahead: error %d", error);
    return r;
}

/* The caller holds the lock. */
static bool ready(const bq_reader *r) { return r->have > r->taken || r->bad || r->taken == r->count; }

bool bq_reader_wait(bq_reader *r, double seconds) {
    if (!r->threaded) return true;
    double start = bq_seconds();
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + (int64_t)(seconds * 1e9);
    until.tv_sec += ns / 1000000000, until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&r->lock);
    while (!ready(r) && pthread_cond_timedwait(&r->moved, &r->lock, &until) != ETIMEDOUT) {}
    bool there = ready(r);
    pthread_mutex_unlock(&r->lock);
    r->stalled += bq_seconds() - start;
    bq_spent.files += bq_seconds() - start;
    return there;
}

/* Of a joined file: read by the caller's thread. */
static const float *read_now(bq_reader *r) {
    if (r->bad || r->taken == r->count) return NULL;
    r->bad = !bq_acts_read(r->acts, r->first + r->taken, r->ring);
    r->taken += !r->bad;
    return r->bad ? NULL : r->ring;
}

const float *bq_reader_next(bq_reader *r) {
    if (!r->threaded) return read_now(r);
    while (!bq_reader_wait(r, 1)) {}
    const float *sample = NULL;
    pthread_mutex_lock(&r->lock);
    if (r->have > r->taken) bq_spent.read += (int64_t)(r->size * sizeof *sample);
    if (r->have > r->taken) sample = r->ring + (size_t)(r->taken++ % r->depth) * r->size;
    pthread_cond_broadcast(&r->moved);
    pthread_mutex_unlock(&r->lock);
    return sample;
}

double bq_reader_stalled(const bq_reader *r) { return r->stalled; }

void bq_reader_close(bq_reader *r) {
    if (!r) return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->moved);
    pthread_mutex_unlock(&r->lock);
    if (r->threaded) pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->moved);
    pthread_mutex_destroy(&r->lock);
    free(r->ring);
    free(r);
}
