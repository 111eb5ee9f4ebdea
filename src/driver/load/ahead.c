/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/load/ahead.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "base/meter.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { SLOTS = BQ_AHEAD_SLOTS, NONE = -1 };

typedef enum { EMPTY, FULL, MOVING } state; /* free; to be copied; being copied */

struct bq_ahead {
    const bq_source *src;
    bq_dev *dev;
    bq_block blk;
    int block; /* being read, or NONE */
    float *memory[SLOTS];
    pthread_t thread;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t moved;
    struct {
        state is;
        bq_mat host, to;
    } slot[SLOTS];
    int64_t read, handed; /* pieces */
    bool whole, stop;     /* the thread has read all; must end */
    int64_t bytes;        /* that it has read */
};

static bool read_piece(void *ctx, const char *name, int64_t first, bq_mat to) {
    bq_ahead *a = ctx;
    int k = (int)(a->read % SLOTS);
    pthread_mutex_lock(&a->lock);
    while (a->slot[k].is != EMPTY && !a->stop) pthread_cond_wait(&a->moved, &a->lock);
    bool on = !a->stop;
    pthread_mutex_unlock(&a->lock);
    if (!on) return false;
    bq_mat host = bq_mat_host(a->memory[k], to.rows, to.cols, BQ_F32);
    host.place = BQ_PINNED;
    bq_source_rows(a->src, name, first, host);
    pthread_mutex_lock(&a->lock);
    a->slot[k].is = FULL, a->slot[k].host = host, a->slot[k].to = to;
    a->read++;
    pthread_cond_broadcast(&a->moved);
    pthread_mutex_unlock(&a->lock);
    return true;
}

static void *read_block(void *ctx) {
    bq_ahead *a = ctx;
    bq_source_pieces(a->src, a->block, &a->blk, read_piece, a);
    pthread_mutex_lock(&a->lock);
    a->whole = true;
    a->bytes = bq_spent.read;
    pthread_cond_broadcast(&a->moved);
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

bq_ahead *bq_ahead_open(const bq_source *src, bq_dev *dev, int64_t values) {
    bq_ahead *a = calloc(1, sizeof *a);
    BQ_CHECK(a, "no memory to read ahead");
    a->src = src, a->dev = dev, a->block = NONE;
    bq_block_push(&a->blk, bq_source_first(src), &dev->mem);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->moved, NULL);
    bool pinned = true;
    for (int k = 0; k < SLOTS; k++) {
        a->memory[k] = dev->op->pin(dev, (size_t)values * sizeof(float));
        pinned = pinned && a->memory[k];
    }
    dev->op->join(dev); /* the arena's last user may still be at work */
    if (pinned) return a;
    bq_log_all(BQ_WARN, "no pinned memory to read weights ahead: each block waits for its own");
    bq_ahead_close(a);
    return NULL;
}

/* Wait for the end of the thread and of the copies. */
static void settle(bq_ahead *a) {
    if (a->block == NONE) return;
    pthread_join(a->thread, NULL);
    bq_spent.read += a->bytes;
    a->dev->op->join(a->dev);
    a->block = NONE;
}

static void drop(bq_ahead *a) {
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_broadcast(&a->moved);
    pthread_mutex_unlock(&a->lock);
    settle(a);
    a->dev->op->wait(a->dev);
    for (int k = 0; k < SLOTS; k++) a->slot[k].is = EMPTY;
}

void bq_ahead_close(bq_ahead *a) {
    if (!a) return;
    drop(a);
    for (int k = 0; k < SLOTS; k++)
        if (a->memory[k]) a->dev->op->unpin(a->dev, a->memory[k]);
    pthread_cond_destroy(&a->moved);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void bq_ahead_start(bq_ahead *a, int b) {
    if (!a || b >= a->src->arch.model.blocks) return;
    drop(a);
    a->block = b, a->read = a->handed = 0, a->whole = a->stop = false;
    bq_block_turn(&a->blk, bq_source_core(a->src, b), b);
    int error = bq_fault("ahead_thread") ? EAGAIN : pthread_create(&a->thread, NULL, read_block, a);
    BQ_CHECK(error == 0, "no thread to read weights ahead: error %d", error);
}

/* Copy full slots; true when all is copied.  The caller holds the lock. */
static bool hand_over(bq_ahead *a) {
    const bq_ops *op = a->dev->op;
    bool moving = false, changed = false;
    for (int k = 0; k < SLOTS; k++) moving = moving || a->slot[k].is == MOVING;
    if (moving && op->arrived(a->dev))
        for (int k = 0; k < SLOTS; k++)
            if (a->slot[k].is == MOVING) a->slot[k].is = EMPTY, changed = true;
    while (a->handed < a->read && a->slot[a->handed % SLOTS].is == FULL) {
        int k = (int)(a->handed++ % SLOTS);
        op->put_ahead(a->dev, a->slot[k].host, a->slot[k].to);
        a->slot[k].is = MOVING;
    }
    if (changed) pthread_cond_broadcast(&a->moved);
    return a->whole && a->handed == a->read;
}

void bq_ahead_move(bq_ahead *a) {
    if (!a || a->block == NONE) return;
    pthread_mutex_lock(&a->lock);
    hand_over(a);
    pthread_mutex_unlock(&a->lock);
}

void bq_ahead_take(bq_ahead *a, const bq_source *src, bq_dev *dev, int b, bq_block *blk) {
    if (a && a->block != b) drop(a);
    if (!a || a->block != b) {
        bq_source_unit(src, dev, b, bq_source_core(src, b), blk);
        return;
    }
    double start = bq_seconds();
    for (bool all = false; !all;) {
        pthread_mutex_lock(&a->lock);
        all = hand_over(a);
        pthread_mutex_unlock(&a->lock);
        if (all) break;
        if (bq_dev_waiting) bq_dev_waiting();
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    bq_spent.files += bq_seconds() - start;
    bq_log_all(BQ_DEBUG, "block %d: weights read ahead, waited %.3f s for the rest", b + 1,
               bq_seconds() - start);
    settle(a);
    bq_block other = *blk;
    *blk = a->blk, a->blk = other;
    bq_block_turn(blk, bq_source_core(src, b), b);
}
