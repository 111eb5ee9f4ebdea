/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/midblock.h"

#include "base/die.h"
#include "base/log.h"
#include "io/files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char format[] = "blockq inside";

enum { VERSION = 1 };
#define MAX_STEPS ((int64_t)1 << 32)

struct bq_inside_file {
    bq_h5 h;
    bq_inside head; /* loss NULL */
    int64_t at[BQ_INSIDE_PARTS], loss;
    int written; /* number of parts written */
};

void bq_inside_path(char *out, size_t n, const char *run_dir, int block, int slot) {
    int length = snprintf(out, n, "%s/ckpt/inside_%03d.%c.h5", run_dir, block, 'A' + slot);
    BQ_CHECK(length >= 0 && (size_t)length < n, "path of the checkpoints in '%s' is too long", run_dir);
}

static bq_inside_file *new_file(const bq_inside *head) {
    bq_inside_file *f = calloc(1, sizeof *f);
    BQ_CHECK(f, "no memory for a description of a block's training");
    BQ_CHECK(head->parts >= 0 && head->parts <= BQ_INSIDE_PARTS, "%d parts of a block's training",
             head->parts);
    f->head = *head;
    f->head.loss = NULL;
    return f;
}

static void put_structure(bq_inside_file *f) {
    bq_h5 *h = &f->h;
    const bq_inside *in = &f->head;
    bq_h5_put_head(h, format, VERSION, in->fingerprint);
    bq_h5_put_int(h, "sweep", BQ_I32, in->sweep);
    bq_h5_put_int(h, "phase", BQ_I32, in->phase);
    bq_h5_put_int(h, "pass", BQ_I32, in->pass);
    bq_h5_put_int(h, "block", BQ_I32, in->block);
    bq_h5_put_int(h, "steps", BQ_I64, in->steps);
    f->loss = bq_h5_put_data(h, "loss", BQ_F64, 1, &in->steps);
    for (int i = 0; i < in->parts; i++)
        f->at[i] =
            bq_h5_put_data(h, in->part[i].name, BQ_F32, 2, (int64_t[]){in->part[i].rows, in->part[i].cols});
}

bq_inside_file *bq_inside_create(const char *path, const bq_inside *inside) {
    bq_inside_file *f = new_file(inside);
    BQ_CHECK(inside->steps > 0 && inside->steps <= MAX_STEPS, "'%s': %" PRId64 " steps", path, inside->steps);
    bq_h5_create(&f->h, path);
    put_structure(f);
    int64_t previous = bq_h5_put_data(&f->h, "previous", BQ_F64, 1, (int64_t[]){1});
    bq_h5_fix(&f->h);
    bq_h5_write(&f->h, f->loss, bq_mat_host(inside->loss, 1, inside->steps, BQ_F64));
    bq_h5_write(&f->h, previous, bq_mat_host(&f->head.previous, 1, 1, BQ_F64));
    return f;
}

static void check_part(const bq_inside_file *f, int part, int64_t first, bq_mat m) {
    BQ_CHECK(part >= 0 && part < f->head.parts && m.type == BQ_F32 && m.cols == f->head.part[part].cols &&
                 first >= 0 && m.rows >= 0 && m.rows <= f->head.part[part].rows - first,
             "rows %" PRId64 " + %" PRId64 " of part %d of '%s'", first, m.rows, part, f->h.path);
}

void bq_inside_write(bq_inside_file *f, int part, bq_mat m) {
    check_part(f, part, 0, m);
    BQ_CHECK(m.rows == f->head.part[part].rows, "%" PRId64 " rows of part %d of '%s'", m.rows, part,
             f->h.path);
    if (f->written++ == f->head.parts / 2 && bq_fault("inside_write"))
        errno = ENOSPC, bq_h5_fail(&f->h, "write");
    bq_h5_write(&f->h, f->at[part], m);
}

void bq_inside_commit(bq_inside_file *f) {
    BQ_CHECK(f->written == f->head.parts, "%d of %d parts of '%s' are written", f->written, f->head.parts,
             f->h.path);
    bq_h5_seal(&f->h, f->head.fingerprint);
    bq_h5_commit(&f->h);
    free(f);
}

static bool is_equal(bq_h5 *h, const char *name, int expected) {
    int64_t value;
    if (!bq_h5_get_int(h, name, 0, INT32_MAX, &value)) return false;
    return value == expected || bq_h5_refuse(h, "its %s is %" PRId64 ", not %d", name, value, expected);
}

static bool get_structure(bq_inside_file *f) {
    bq_h5 *h = &f->h;
    bq_inside *in = &f->head;
    int64_t pass, shape[2], at;
    if (bq_h5_get_head(h, format, VERSION, VERSION, in->fingerprint) != BQ_H5_OK ||
        !is_equal(h, "sweep", in->sweep) || !is_equal(h, "phase", in->phase) ||
        !is_equal(h, "block", in->block) || !bq_h5_get_int(h, "pass", 0, INT32_MAX, &pass) ||
        !bq_h5_get_int(h, "steps", 1, MAX_STEPS, &in->steps) ||
        !bq_h5_get_data(h, "loss", BQ_F64, 1, shape, &f->loss))
        return false;
    in->pass = (int)pass;
    if (in->parts_of) in->parts_of(in->ctx, in);
    if (in->parts_of && !in->parts)
        return bq_h5_refuse(h, "pass %" PRId64 " of the phase does not train", pass);
    if (shape[0] != in->steps)
        return bq_h5_refuse(h, "%" PRId64 " losses for %" PRId64 " steps", shape[0], in->steps);
    for (int i = 0; i < in->parts; i++) {
        const char *name = in->part[i].name;
        if (!bq_h5_get_data(h, name, BQ_F32, 2, shape, &f->at[i])) return false;
        if (shape[0] != in->part[i].rows || shape[1] != in->part[i].cols)
            return bq_h5_refuse(h, "'%s' is %" PRId64 " x %" PRId64, name, shape[0], shape[1]);
    }
    if (!bq_h5_get_data(h, "previous", BQ_F64, 1, shape, &at)) return false;
    if (shape[0] != 1) return bq_h5_refuse(h, "'previous' has %" PRId64 " values", shape[0]);
    return bq_h5_read(h, at, bq_mat_host(&in->previous, 1, 1, BQ_F64));
}

bq_inside_file *bq_inside_open(const char *path, bq_inside *inside, char *why) {
    uint64_t tag;
    bq_inside_file *f = new_file(inside);
    bool good = bq_h5_open(&f->h, path, &tag) && get_structure(f);
    if (good) {
        double *loss = inside->loss;
        *inside = f->head, inside->loss = loss;
    }
    memcpy(why, f->h.why, BQ_WHY);
    if (f->h.absent) why[0] = 0;
    bq_h5_detach(&f->h);
    if (good) return f;
    bq_inside_close(f);
    return NULL;
}

static bool is_further(const bq_inside *a, const bq_inside *b) {
    return a->pass != b->pass ? a->pass > b->pass : a->steps > b->steps;
}

int bq_inside_find(bq_inside_file **f, const char *run_dir, bq_inside *inside) {
    int best = BQ_INSIDE_NONE;
    char path[BQ_PATH], why[BQ_WHY];
    *f = NULL;
    for (int slot = 0; slot < BQ_INSIDE_SLOTS; slot++) {
        bq_inside head = *inside;
        bq_inside_path(path, sizeof path, run_dir, inside->block, slot);
        bq_inside_file *one = bq_inside_open(path, &head, why);
        if (why[0])
            bq_log_all(BQ_INFO, "block %d: state %c of its training does not count: %s", inside->block + 1,
                       'A' + slot, why);
        if (one && (best == BQ_INSIDE_NONE || is_further(&head, inside))) {
            bq_inside_close(*f);
            *f = one, *inside = head, best = slot;
        } else
            bq_inside_close(one);
    }
    return best;
}

static bool glance_at(const char *path, bq_inside *in) {
    bq_h5 h;
    int64_t sweep, phase, pass;
    bool good = bq_h5_open(&h, path, NULL) &&
                bq_h5_get_head(&h, format, VERSION, VERSION, in->fingerprint) == BQ_H5_OK &&
                bq_h5_get_int(&h, "sweep", 0, INT32_MAX, &sweep) &&
                bq_h5_get_int(&h, "phase", 0, INT32_MAX, &phase) &&
                bq_h5_get_int(&h, "pass", 0, INT32_MAX, &pass) &&
                bq_h5_get_int(&h, "steps", 1, MAX_STEPS, &in->steps);
    bq_h5_close(&h);
    if (good) in->sweep = (int)sweep, in->phase = (int)phase, in->pass = (int)pass;
    return good;
}

bool bq_inside_glance(const char *run_dir, bq_inside *inside) {
    char path[BQ_PATH];
    bool found = false;
    for (int slot = 0; slot < BQ_INSIDE_SLOTS; slot++) {
        bq_inside one = *inside;
        bq_inside_path(path, sizeof path, run_dir, inside->block, slot);
        if (!glance_at(path, &one) || (found && !is_further(&one, inside))) continue;
        *inside = one, found = true;
    }
    return found;
}

void bq_inside_read(bq_inside_file *f, int part, int64_t first, bq_mat to) {
    check_part(f, part, first, to);
    bq_h5_must_read(&f->h, f->at[part] + first * to.cols * (int64_t)sizeof(float), to);
}

void bq_inside_read_loss(bq_inside_file *f, double *loss) {
    bq_h5_must_read(&f->h, f->loss, bq_mat_host(loss, 1, f->head.steps, BQ_F64));
}

void bq_inside_close(bq_inside_file *f) {
    if (!f) return;
    bq_h5_close(&f->h);
    free(f);
}

void bq_inside_remove(const char *run_dir, int block) {
    char path[BQ_PATH], temp[BQ_PATH];
    for (int slot = 0; slot < BQ_INSIDE_SLOTS; slot++) {
        bq_inside_path(path, sizeof path - 32, run_dir, block, slot);
        unlink(path);
        bq_temp_name(temp, sizeof temp, path); /* this removes what killed processes left */
    }
}
