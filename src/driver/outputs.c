#include "driver/session.h"

#include "base/die.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "io/checkpoint.h"
#include "io/export.h"
#include "io/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool bq_session_restore(const bq_session *s, bq_dev *dev, const char *path, bq_quantized *q, bool fold) {
    const bq_arch *arch = &s->src.arch;
    bq_ckpt_file *f;
    bq_ckpt head;
    char why[BQ_WHY];
    if (bq_ckpt_open(&f, path, s->fingerprint, &head, why) != BQ_CKPT_OK) {
        bq_log(BQ_WARN, "%s is made again: %s", path, why);
        return false;
    }
    BQ_CHECK(head.linears == arch->linears, "%s has %d linears, the model %d", path, head.linears,
             arch->linears);
    for (int i = 0; i < arch->linears; i++) {
        if (fold) bq_ckpt_read(f, i, BQ_CKPT_FOLD, bq_linear_view(arch, i, q->fold));
        bq_ckpt_read(f, i, BQ_CKPT_CODE, bq_linear_view(arch, i, q->code));
        bq_ckpt_read(f, i, BQ_CKPT_SCALE, bq_mat_reshape(q->scale[i], bq_linear_groups(arch, q->scheme, i)));
    }
    bq_ckpt_close(f);
    bq_quantized_decode(dev, q);
    return true;
}

/* The exporter's view of the run: tensors of the checkpoint that was asked for last. */
typedef struct {
    const bq_session *s;
    int block;
    bq_ckpt_file *file;
    bq_ckpt head;
    int8_t *code; /* room for the largest linear, and for its scales */
    float *scale;
} tensors;

static void open_block(tensors *t, int block) {
    char path[BQ_PATH_MAX + 64], why[BQ_WHY];
    if (t->file && t->block == block) return;
    bq_ckpt_close(t->file);
    bq_session_checkpoint(t->s, block, path, sizeof path);
    int found = bq_ckpt_open(&t->file, path, t->s->fingerprint, &t->head, why);
    BQ_CHECK(found == BQ_CKPT_OK, "checkpoint %s cannot be exported: %s", path, why);
    t->block = block;
}

static bool get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    tensors *t = ctx;
    const bq_arch *arch = &t->s->src.arch;
    int block, i;
    bq_heartbeat(t->s->comm);
    if (!bq_arch_find(arch, name, &block, &i)) return false;
    const bq_linear *l = &arch->linear[i];
    bq_scheme scheme = t->s->scheme[i];
    int64_t groups = bq_linear_groups(arch, t->s->scheme, i);
    *q = (bq_qtensor){.bits = scheme.bits,
                      .group = scheme.group > 0 ? scheme.group : 0,
                      .code = bq_mat_host(NULL, l->rows, l->cols, BQ_I8),
                      .scale = bq_mat_host(NULL, l->rows, groups, BQ_F32)};
    if (!want_data) return true;
    open_block(t, block);
    q->code.data = t->code, q->scale.data = t->scale;
    bq_ckpt_read(t->file, i, BQ_CKPT_CODE, q->code);
    bq_ckpt_read(t->file, i, BQ_CKPT_SCALE, q->scale);
    return true;
}

static int export_one(const bq_session *s, bq_format format, const char *dir) {
    const bq_arch *arch = &s->src.arch;
    size_t codes = 0, scales = 0;
    for (int i = 0; i < arch->linears; i++) {
        size_t c = (size_t)(arch->linear[i].rows * arch->linear[i].cols);
        size_t g = (size_t)(arch->linear[i].rows * bq_linear_groups(arch, s->scheme, i));
        codes = c > codes ? c : codes, scales = g > scales ? g : scales;
    }
    tensors t = {.s = s, .code = malloc(codes), .scale = malloc(scales * sizeof(float))};
    BQ_CHECK(t.code && t.scale, "no memory to export a linear of %zu weights", codes);
    bq_qsource source = {&t, get};
    int code = format == BQ_OUT_COMPRESSED ? bq_export_ct(s->src.weights, s->src.dir, dir, source)
                                           : bq_export_dense(s->src.weights, s->src.dir, dir, source);
    bq_ckpt_close(t.file);
    free(t.code);
    free(t.scale);
    return code;
}

/* A file that names the run's fingerprint says that the directory is whole. */
static bool exported(const char *mark, const char *text) {
    char *have = NULL;
    size_t bytes = 0;
    bool same = bq_file_read(mark, 64, &have, &bytes) == 0 && strcmp(have, text) == 0;
    free(have);
    return same;
}

int bq_session_export(bq_session *s) {
    char dir[2 * BQ_PATH_MAX], mark[2 * BQ_PATH_MAX], text[32];
    int code = BQ_OK;
    snprintf(text, sizeof text, "%016lx\n", (unsigned long)s->fingerprint);
    for (int i = 0; i < s->recipe.noutput && s->comm->rank == 0 && code == BQ_OK; i++) {
        const bq_output *o = &s->recipe.output[i];
        snprintf(dir, sizeof dir, "%s/%s", s->dir, o->dir);
        snprintf(mark, sizeof mark, "%s/ckpt/export_%s.done", s->dir, o->dir);
        if (exported(mark, text) && bq_file_exists(dir)) continue;
        code = export_one(s, o->format, dir);
        if (code) break;
        int error = bq_file_write_atomic(mark, text, strlen(text));
        BQ_CHECK(error == 0, "write of '%s' failed: %s", mark, strerror(error));
        bq_log(BQ_INFO, "wrote %s", dir);
    }
    return bq_comm_agree(s->comm, code);
}

int bq_session_export_to(const bq_session *s, bq_format format, const char *dir) {
    return bq_comm_agree(s->comm, s->comm->rank == 0 ? export_one(s, format, dir) : BQ_OK);
}
