/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/checkpoint_parts.h"

#include "base/die.h"
#include "io/files.h"
#include "io/state/codes.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char bq_ckpt_format[] = "blockq block";
const char *const bq_ckpt_part_name[BQ_CKPT_PARTS] = {"fold", "code", "scale", "zero",
                                                      "bias", "pre",  "outer"};
const bq_type bq_ckpt_part_type[BQ_CKPT_PARTS] = {BQ_F32, BQ_I8, BQ_F32, BQ_F32, BQ_F32, BQ_F32, BQ_F32};
const char *const bq_ckpt_norm_name[BQ_CKPT_NORMS] = {"norm_0", "norm_1", "final_norm"};

struct bq_ckpt_file {
    bq_h5 h;
    bq_ckpt head; /* views without data, whose shapes reads are checked against */
    bq_ckpt_offsets at;
    bool packed[BQ_MAX_LINEAR]; /* are its codes? */
};

static void path_of(char *out, size_t n, const char *run_dir, int sweep, int phase, int block,
                    const char *unit) {
    int length = snprintf(out, n, "%s/ckpt/block_%03d.p%d.s%d%s.h5", run_dir, block, phase, sweep, unit);
    BQ_CHECK(length >= 0 && (size_t)length < n, "path of the checkpoints in '%s' is too long", run_dir);
}

void bq_ckpt_path(char *out, size_t n, const char *run_dir, int sweep, int phase, int block) {
    path_of(out, n, run_dir, sweep, phase, block, "");
}

void bq_ckpt_expert_path(char *out, size_t n, const char *run_dir, int sweep, int phase, int block,
                         int expert) {
    char unit[24];
    snprintf(unit, sizeof unit, ".e%03d", expert);
    path_of(out, n, run_dir, sweep, phase, block, unit);
}

void bq_ckpt_core_path(char *out, size_t n, const char *run_dir, int sweep, int phase, int block) {
    path_of(out, n, run_dir, sweep, phase, block, ".core");
}

void bq_ckpt_finish(const char *run_dir, int sweep, int phase, int block) {
    char from[BQ_PATH], to[BQ_PATH];
    bq_ckpt_core_path(from, sizeof from, run_dir, sweep, phase, block);
    bq_ckpt_path(to, sizeof to, run_dir, sweep, phase, block);
    int error = bq_file_rename(from, to);
    BQ_CHECK(!error || error == ENOENT, "'%s' cannot be renamed: %s", from, strerror(error));
}

bq_mat *bq_ckpt_part_of(bq_ckpt_linear *l, int part) {
    bq_mat *const of[BQ_CKPT_PARTS] = {&l->fold, &l->code, &l->scale, &l->zero, &l->bias, &l->pre, &l->outer};
    return of[part];
}

static int64_t groups_of(bq_scheme s, int64_t cols) {
    return s.group < 0 ? 1 : (cols + s.group - 1) / s.group;
}

const char *bq_ckpt_fault(const bq_ckpt_linear *l) {
    const bq_mat shape = bq_ckpt_shape(l), *f = &shape, *c = &l->code, *s = &l->scale, *z = &l->zero,
                 *b = &l->bias, *p = &l->pre;
    if (!l->name[0] || !memchr(l->name, 0, sizeof l->name)) return "no name";
    if (f->rows <= 0 || f->cols <= 0) return "neither weights nor codes";
    if (l->scheme.group != -1 && (l->scheme.group < 1 || l->scheme.group > INT32_MAX))
        return "an impossible group";
    if (b->rows != 0 && (b->rows != 1 || b->cols != f->rows)) return "a bias of another shape";
    if (p->rows != 0 && (p->rows != 1 || p->cols != f->cols)) return "factors of another shape";
    if (c->rows == 0 && s->rows == 0) return z->rows == 0 ? NULL : "zero points without codes";
    if (!bq_scheme_valid(l->scheme, !l->scheme.symmetric)) return "an impossible number of bits";
    if (l->outer.rows != (l->scheme.scale == BQ_F8_E4M3) || l->outer.cols != l->outer.rows)
        return "an outer scale where none belongs, or none where one does";
    if (c->rows != f->rows || c->cols != f->cols) return "codes of another shape";
    if (s->rows != f->rows || s->cols != groups_of(l->scheme, f->cols)) return "scales of another shape";
    if (l->scheme.symmetric) return z->rows == 0 ? NULL : "zero points in a symmetric scheme";
    return z->rows == s->rows && z->cols == s->cols ? NULL : "zero points of another shape";
}

const char *bq_ckpt_fault_of_block(const bq_ckpt *c) {
    const bq_mat *n = c->norm;
    if (n[0].rows != n[1].rows || (n[0].rows && (n[0].rows != 1 || n[0].cols != n[1].cols)))
        return "norms of unlike shapes";
    if (n[2].rows && (!n[0].rows || n[2].rows != 1 || n[2].cols != n[0].cols))
        return "a final norm of another shape";
    for (int i = 0; i < c->linears && !bq_ckpt_folded(c); i++)
        if (c->linear[i].bias.rows) return "a bias without norms";
    return NULL;
}

/* Added to `symmetric`: zero points are floats; where it is symmetric, e4m3 scales are multiplied by the
 * outer one (BQ_GRID_TORCHAO). */
enum { OTHER = 2 };

void bq_ckpt_put_scheme(bq_h5 *h, bq_scheme s) {
    bq_h5_put_int(h, "bits", BQ_I32, s.element);
    bq_h5_put_int(h, "group", BQ_I64, s.group);
    const bool other = bq_scheme_offset(s) || (s.scale == BQ_F8_E4M3 && s.grid == BQ_GRID_TORCHAO);
    bq_h5_put_int(h, "symmetric", BQ_I32, s.symmetric + (other ? OTHER : 0));
    bq_h5_put_text(h, "scale_type", bq_type_name(s.scale));
    if (!bq_element_whole(s.element)) bq_h5_put_int(h, "rows", BQ_I64, s.rows);
}

/* The rule of its grid is not there, but for that: scales say what it was for. */
static bool get_scheme(bq_h5 *h, bq_scheme *s) {
    static const bq_type known[] = {BQ_F32, BQ_BF16, BQ_F16, BQ_F8_E8M0, BQ_F8_E4M3};
    int64_t element, symmetric;
    char text[16];
    if (!bq_h5_get_int(h, "bits", 0, 64, &element) || !bq_h5_get_int(h, "group", -1, INT32_MAX, &s->group) ||
        !bq_h5_get_int(h, "symmetric", 0, 1 + OTHER, &symmetric) ||
        !bq_h5_get_text(h, "scale_type", text, sizeof text))
        return false;
    s->element = (int)element, s->symmetric = symmetric % OTHER;
    if (symmetric == OTHER) s->zero = BQ_ZERO_FLOAT;
    if (symmetric > OTHER) s->grid = BQ_GRID_TORCHAO;
    if (!bq_element_whole(s->element) && !bq_h5_get_int(h, "rows", -1, INT32_MAX, &s->rows)) return false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(text, bq_type_name(known[i])) == 0) return s->scale = known[i], true;
    return bq_h5_refuse(h, "scale type '%s' is unknown", text);
}

/* Codes in as few bits as they have: their bytes do not tell the columns. */
static bool get_packed(bq_h5 *h, bq_ckpt_linear *l, int64_t *at) {
    const int bits = bq_code_bits(l->scheme);
    int64_t shape[2], cols;
    if (bits < 1 || l->code.rows) return bq_h5_refuse(h, "codes that cannot be packed, or are there twice");
    if (!bq_h5_get_data(h, "packed", BQ_U8, 2, shape, at) ||
        !bq_h5_get_int(h, "cols", 1, INT64_MAX / 16, &cols))
        return false;
    if (shape[1] != bq_codes_bytes(cols, bits))
        return bq_h5_refuse(h, "rows of %" PRId64 " bytes for %" PRId64 " codes of %d bits", shape[1], cols,
                            bits);
    l->code = bq_mat_host(NULL, shape[0], cols, BQ_I8);
    return true;
}

static bool get_linear(bq_h5 *h, int index, bq_ckpt_linear *l, int64_t *at, bool *packed) {
    char group[32];
    snprintf(group, sizeof group, "linear_%02d", index);
    if (!bq_h5_get_group(h, group) || !bq_h5_get_text(h, "name", l->name, sizeof l->name) ||
        !get_scheme(h, &l->scheme))
        return false;
    for (int p = 0; p < BQ_CKPT_PARTS; p++) {
        const bq_type type = bq_ckpt_part_type[p];
        int64_t shape[2];
        if (!bq_h5_has_data(h, bq_ckpt_part_name[p])) continue;
        if (!bq_h5_get_data(h, bq_ckpt_part_name[p], type, 2, shape, &at[p])) return false;
        *bq_ckpt_part_of(l, p) = bq_mat_host(NULL, shape[0], shape[1], type);
    }
    *packed = bq_h5_has_data(h, "packed");
    if (*packed && !get_packed(h, l, &at[BQ_CKPT_CODE])) return false;
    const char *fault = bq_ckpt_fault(l);
    return !fault || bq_h5_refuse(h, "linear %d has %s", index, fault);
}

static bool get_structure(bq_ckpt_file *f) {
    bq_h5 *h = &f->h;
    bq_ckpt *c = &f->head;
    bq_ckpt_offsets *at = &f->at;
    int64_t sweep, phase, block, linears;
    if (!bq_h5_get_int(h, "sweep", 0, INT32_MAX, &sweep) ||
        !bq_h5_get_int(h, "phase", 0, INT32_MAX, &phase) ||
        !bq_h5_get_int(h, "block", 0, INT32_MAX, &block) ||
        !bq_h5_get_int(h, "linears", 0, BQ_MAX_LINEAR, &linears) ||
        !bq_h5_get_int(h, "steps", 0, BQ_CKPT_STEPS, &c->steps))
        return false;
    c->sweep = (int)sweep, c->phase = (int)phase, c->block = (int)block, c->linears = (int)linears;
    if (c->steps > 0) {
        int64_t steps;
        if (!bq_h5_get_data(h, "loss", BQ_F64, 1, &steps, &at->loss)) return false;
        if (steps != c->steps)
            return bq_h5_refuse(h, "%ld losses for %ld steps", (long)steps, (long)c->steps);
    }
    for (int i = 0; i < BQ_CKPT_NORMS; i++) {
        int64_t shape[2];
        if (!bq_h5_has_data(h, bq_ckpt_norm_name[i])) continue;
        if (!bq_h5_get_data(h, bq_ckpt_norm_name[i], BQ_F32, 2, shape, &at->norm[i])) return false;
        c->norm[i] = bq_mat_host(NULL, shape[0], shape[1], BQ_F32);
    }
    for (int i = 0; i < c->linears; i++)
        if (!get_linear(h, i, &c->linear[i], at->part[i], &f->packed[i])) return false;
    const char *wrong = bq_ckpt_fault_of_block(c);
    return !wrong || bq_h5_refuse(h, "the block has %s", wrong);
}

/* Returns a BQ_CKPT value; unless it is OK, h->why has the reason. */
static int look(bq_ckpt_file *f, const char *path, uint64_t fingerprint) {
    uint64_t tag;
    if (!bq_h5_open(&f->h, path, &tag)) return f->h.absent ? BQ_CKPT_ABSENT : BQ_CKPT_TORN;
    int status = bq_h5_get_head(&f->h, bq_ckpt_format, 1, BQ_CKPT_VERSION, fingerprint);
    f->head.fingerprint = fingerprint;
    if (status == BQ_H5_OK && !get_structure(f)) status = BQ_CKPT_TORN;
    return status;
}

int bq_ckpt_open(bq_ckpt_file **out, const char *path, uint64_t fingerprint, bq_ckpt *head, char *why) {
    bq_ckpt_file *f = calloc(1, sizeof *f);
    BQ_CHECK(f, "no memory for a checkpoint's description");
    int status = look(f, path, fingerprint);
    if (why) memcpy(why, f->h.why, BQ_WHY);
    *head = f->head;
    bq_h5_detach(&f->h);
    *out = status == BQ_CKPT_OK ? f : NULL;
    if (!*out) bq_ckpt_close(f);
    return status;
}

static int unit_of(const bq_ckpt *head) {
    static const char before[] = ".experts.";
    const char *number = head->linears ? strstr(head->linear[0].name, before) : NULL;
    return number ? 1 + (int)strtol(number + strlen(before), NULL, 10) : 0;
}

int bq_ckpt_open_at(bq_ckpt_file **out, const char *path, uint64_t fingerprint, bq_ckpt_at at, bq_ckpt *head,
                    char *why) {
    int status = bq_ckpt_open(out, path, fingerprint, head, why), unit = unit_of(head);
    if (status != BQ_CKPT_OK ||
        (head->sweep == at.sweep && head->phase == at.phase && head->block == at.block && unit == at.unit))
        return status;
    int n =
        snprintf(why, BQ_WHY, "it is of block %d, phase %d, sweep %d", head->block, head->phase, head->sweep);
    if (unit) snprintf(why + n, BQ_WHY - (size_t)n, ", expert %d", unit - 1);
    bq_ckpt_close(*out);
    *out = NULL;
    return BQ_CKPT_FOREIGN;
}

int bq_ckpt_peek(const char *path, uint64_t fingerprint) {
    int64_t size;
    uint64_t tag;
    int fd, err = bq_file_open(path, O_RDONLY, &fd);
    if (err) return err == ENOENT ? BQ_CKPT_ABSENT : BQ_CKPT_TORN;
    bool sealed = bq_seal_check(fd, false, &size, &tag);
    close(fd);
    return !sealed ? BQ_CKPT_TORN : tag == fingerprint ? BQ_CKPT_OK : BQ_CKPT_FOREIGN;
}

static void read_packed(bq_ckpt_file *f, int linear, int64_t first, bq_mat to) {
    const bq_scheme s = f->head.linear[linear].scheme;
    const int64_t bytes = bq_codes_bytes(to.cols, bq_code_bits(s));
    const int64_t most = bq_ckpt_chunk(bytes);
    uint8_t *room = malloc((size_t)(most * bytes));
    BQ_CHECK(room, "no memory for %" PRId64 " bytes of codes", most * bytes);
    for (int64_t at = 0, n; at < to.rows; at += n) {
        n = to.rows - at < most ? to.rows - at : most;
        bq_h5_must_read(&f->h, f->at.part[linear][BQ_CKPT_CODE] + (first + at) * bytes,
                        bq_mat_host(room, n, bytes, BQ_U8));
        for (int64_t r = 0; r < n; r++)
            bq_codes_unpack(room + r * bytes, to.cols, bq_code_bits(s), bq_element_whole(s.element),
                            bq_mat_at(to, at + r, 0));
    }
    free(room);
}

void bq_ckpt_read_rows(bq_ckpt_file *f, int linear, bq_ckpt_part part, int64_t first, bq_mat to) {
    BQ_CHECK(linear >= 0 && linear < f->head.linears, "linear %d of '%s'", linear, f->h.path);
    bq_mat m = *bq_ckpt_part_of(&f->head.linear[linear], (int)part);
    BQ_CHECK(to.type == m.type && to.cols == m.cols && first >= 0 && to.rows >= 0 &&
                 to.rows <= m.rows - first,
             "rows %ld + %ld of %s of linear %d of '%s'", (long)first, (long)to.rows, bq_ckpt_part_name[part],
             linear, f->h.path);
    if (part == BQ_CKPT_CODE && f->packed[linear]) {
        read_packed(f, linear, first, to);
        return;
    }
    int64_t skip = first * m.cols * (int64_t)bq_type_size(m.type);
    bq_h5_must_read(&f->h, f->at.part[linear][part] + skip, to);
}

void bq_ckpt_read(bq_ckpt_file *f, int linear, bq_ckpt_part part, bq_mat to) {
    BQ_CHECK(linear >= 0 && linear < f->head.linears &&
                 to.rows == bq_ckpt_part_of(&f->head.linear[linear], (int)part)->rows,
             "%s of linear %d of '%s' has not %" PRId64 " rows", bq_ckpt_part_name[part], linear, f->h.path,
             to.rows);
    bq_ckpt_read_rows(f, linear, part, 0, to);
}

void bq_ckpt_read_norm(bq_ckpt_file *f, int norm, bq_mat to) {
    BQ_CHECK(norm >= 0 && norm < BQ_CKPT_NORMS && to.type == BQ_F32 && to.rows == 1 &&
                 f->head.norm[norm].rows == 1 && to.cols == f->head.norm[norm].cols,
             "norm %d of '%s' is not of %" PRId64 " values", norm, f->h.path, to.cols);
    bq_h5_must_read(&f->h, f->at.norm[norm], to);
}

void bq_ckpt_read_loss(bq_ckpt_file *f, double *loss) {
    if (f->head.steps > 0) bq_h5_must_read(&f->h, f->at.loss, bq_mat_host(loss, 1, f->head.steps, BQ_F64));
}

void bq_ckpt_close(bq_ckpt_file *f) {
    if (!f) return;
    bq_h5_close(&f->h);
    free(f);
}
