/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/checkpoint_parts.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "base/meter.h"
#include "io/state/codes.h"
#include "io/state/raw.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct bq_ckpt_out {
    bq_h5 h;
    bq_ckpt c;
    bq_ckpt_offsets at;
    const char *failed; /* what of the writing, or NULL; */
    int error;          /* and why */
    bq_ckpt_cost cost;
    bool behind; /* by a thread */
    pthread_t thread;
    pthread_mutex_t lock; /* of `ended` alone: all else is the thread's from its start until then */
    pthread_cond_t moved;
    bool ended;
};

static void check(const char *path, const bq_ckpt *c) {
    BQ_CHECK(c->linears >= 0 && c->linears <= BQ_MAX_LINEAR && c->steps >= 0 && c->steps <= BQ_CKPT_STEPS,
             "'%s': %d linears, %" PRId64 " steps", path, c->linears, c->steps);
    const char *wrong = bq_ckpt_fault_of_block(c);
    BQ_CHECK(!wrong, "'%s': the block has %s", path, wrong);
    for (int i = 0; i < BQ_CKPT_NORMS; i++)
        BQ_CHECK(!c->norm[i].rows || c->norm[i].type == BQ_F32, "'%s': norm %d is %s", path, i,
                 bq_type_name(c->norm[i].type));
    for (int i = 0; i < c->linears; i++) {
        bq_ckpt_linear l = c->linear[i];
        const char *fault = bq_ckpt_fault(&l);
        BQ_CHECK(!fault, "'%s': linear %d has %s", path, i, fault);
        for (int p = 0; p < BQ_CKPT_PARTS; p++) {
            bq_mat m = *bq_ckpt_part_of(&l, p);
            BQ_CHECK(m.rows == 0 || m.type == bq_ckpt_part_type[p], "'%s': %s of %s is %s", path,
                     bq_ckpt_part_name[p], l.name, bq_type_name(m.type));
        }
    }
}

/* Bits of each code where they are packed, else 0. */
static int packed_bits(const bq_ckpt_linear *l) {
    int bits = bq_code_bits(l->scheme);
    return l->code.rows && bits < 8 ? bits : 0;
}

static void put_linear(bq_h5 *h, int index, bq_ckpt_linear l, int64_t *at) {
    char group[32];
    snprintf(group, sizeof group, "linear_%02d", index);
    bq_h5_put_group(h, group);
    bq_h5_put_text(h, "name", l.name);
    bq_ckpt_put_scheme(h, l.scheme);
    const int bits = packed_bits(&l);
    if (bits) bq_h5_put_int(h, "cols", BQ_I64, l.code.cols);
    for (int p = 0; p < BQ_CKPT_PARTS; p++) {
        const bq_mat *m = bq_ckpt_part_of(&l, p);
        const int64_t shape[] = {m->rows, m->cols}, packed[] = {m->rows, bq_codes_bytes(m->cols, bits)};
        if (m->rows == 0) continue;
        if (bits && p == BQ_CKPT_CODE)
            at[p] = bq_h5_put_data(h, "packed", BQ_U8, 2, packed);
        else
            at[p] = bq_h5_put_data(h, bq_ckpt_part_name[p], bq_ckpt_part_type[p], 2, shape);
    }
}

static void put_structure(bq_h5 *h, const bq_ckpt *c, bq_ckpt_offsets *at) {
    bq_h5_put_head(h, bq_ckpt_format, BQ_CKPT_VERSION, c->fingerprint);
    bq_h5_put_int(h, "sweep", BQ_I32, c->sweep);
    bq_h5_put_int(h, "phase", BQ_I32, c->phase);
    bq_h5_put_int(h, "block", BQ_I32, c->block);
    bq_h5_put_int(h, "linears", BQ_I32, c->linears);
    bq_h5_put_int(h, "steps", BQ_I64, c->steps);
    if (c->steps > 0) at->loss = bq_h5_put_data(h, "loss", BQ_F64, 1, &c->steps);
    for (int i = 0; i < BQ_CKPT_NORMS; i++)
        if (c->norm[i].rows)
            at->norm[i] = bq_h5_put_data(h, bq_ckpt_norm_name[i], BQ_F32, 2, (int64_t[]){1, c->norm[i].cols});
    for (int i = 0; i < c->linears; i++) put_linear(h, i, c->linear[i], at->part[i]);
}

static bool write_packed(const bq_h5 *h, int64_t offset, bq_mat code, int bits) {
    const int64_t bytes = bq_codes_bytes(code.cols, bits), most = bq_ckpt_chunk(bytes);
    uint8_t *room = malloc((size_t)(most * bytes));
    bool good = room;
    for (int64_t at = 0, n; good && at < code.rows; at += n) {
        n = code.rows - at < most ? code.rows - at : most;
        for (int64_t r = 0; r < n; r++)
            bq_codes_pack(bq_mat_at(code, at + r, 0), code.cols, bits, room + r * bytes);
        good = bq_h5_move(h, offset + at * bytes, bq_mat_host(room, n, bytes, BQ_U8));
    }
    int saved = errno; /* ENOMEM without room */
    free(room);
    errno = saved;
    return good;
}

static bool write_linear(const bq_h5 *h, bq_ckpt_linear l, const int64_t *at) {
    const int bits = packed_bits(&l);
    for (int p = 0; p < BQ_CKPT_PARTS; p++) {
        bq_mat m = *bq_ckpt_part_of(&l, p);
        if (m.rows == 0) continue;
        if (!(bits && p == BQ_CKPT_CODE ? write_packed(h, at[p], m, bits) : bq_h5_move(h, at[p], m)))
            return false;
    }
    return true;
}

/* NULL; or what failed, and errno. */
static const char *write_all(bq_ckpt_out *o) {
    const bq_ckpt *c = &o->c;
    if (c->steps > 0 && !bq_h5_move(&o->h, o->at.loss, bq_mat_host(c->loss, 1, c->steps, BQ_F64)))
        return "write";
    for (int i = 0; i < BQ_CKPT_NORMS; i++)
        if (c->norm[i].rows && !bq_h5_move(&o->h, o->at.norm[i], c->norm[i])) return "write";
    for (int i = 0; i < c->linears; i++) {
        if (i == c->linears / 2) {
            if (bq_fault("ckpt_write")) return errno = ENOSPC, "write";
            bq_fault_signal("ckpt_kill", SIGKILL);
        }
        if (!write_linear(&o->h, c->linear[i], o->at.part[i])) return "write";
    }
    if (!bq_seal_append(o->h.fd, o->h.size, c->fingerprint)) return "write";
    if (bq_fault("ckpt_stall")) nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
    if (bq_fault("ckpt_rename")) return errno = EIO, "rename";
    return bq_h5_publish(&o->h);
}

static void *work(void *ctx) {
    bq_ckpt_out *o = ctx;
    const double start = bq_seconds();
    const bq_meter then = bq_spent;
    o->failed = write_all(o);
    o->error = errno;
    o->cost =
        (bq_ckpt_cost){bq_seconds() - start, bq_spent.read - then.read, bq_spent.written - then.written};
    pthread_mutex_lock(&o->lock);
    o->ended = true;
    pthread_cond_broadcast(&o->moved);
    pthread_mutex_unlock(&o->lock);
    return NULL;
}

bq_ckpt_out *bq_ckpt_start(const char *path, const bq_ckpt *c, bool behind) {
    bq_ckpt_out *o = calloc(1, sizeof *o);
    BQ_CHECK(o, "no memory for a checkpoint's description");
    check(path, c);
    o->c = *c;
    bq_h5_create(&o->h, path);
    put_structure(&o->h, c, &o->at);
    bq_h5_fix(&o->h);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->moved, &clock);
    pthread_condattr_destroy(&clock);
    int error = 0;
    if (behind) error = bq_fault("ckpt_thread") ? EAGAIN : pthread_create(&o->thread, NULL, work, o);
    if (error) bq_log_all(BQ_WARN, "no thread to write '%s': it is written at once", path);
    o->behind = behind && !error;
    if (!o->behind) work(o);
    return o;
}

static bool await(bq_ckpt_out *o, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + (int64_t)(seconds * 1e9);
    until.tv_sec += ns / 1000000000, until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&o->lock);
    while (!o->ended && pthread_cond_timedwait(&o->moved, &o->lock, &until) != ETIMEDOUT) {}
    bool ended = o->ended;
    pthread_mutex_unlock(&o->lock);
    return ended;
}

bool bq_ckpt_end(bq_ckpt_out *o, double seconds, bq_ckpt_cost *cost) {
    const double start = bq_seconds();
    bool ended = await(o, seconds);
    if (o->behind) bq_spent.files += bq_seconds() - start;
    if (!ended) return false;
    if (o->behind) {
        pthread_join(o->thread, NULL);
        bq_spent.read += o->cost.read, bq_spent.written += o->cost.written;
    }
    if (o->failed) {
        unlink(o->h.temp);
        BQ_DIE("%s of '%s' failed: %s: make room or repair that, then the same command goes on from the last "
               "block that is done",
               o->failed, o->h.path, strerror(o->error));
    }
    *cost = o->cost;
    bq_h5_close(&o->h);
    pthread_cond_destroy(&o->moved);
    pthread_mutex_destroy(&o->lock);
    free(o);
    return true;
}

void bq_ckpt_write(const char *path, const bq_ckpt *c) {
    bq_ckpt_cost cost;
    bq_ckpt_end(bq_ckpt_start(path, c, false), 0, &cost);
}
