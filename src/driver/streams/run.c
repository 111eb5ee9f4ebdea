/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/streams/run.h"

#include "base/die.h"
#include "comm/heartbeat.h"
#include "comm/treesum.h"
#include "driver/load/device.h"
#include "io/state/checkpoint.h"

#include <math.h>
#include <stdlib.h>

int bq_root_first(const bq_comm *comm, int (*look)(void *), void *s) {
    int code = bq_comm_agree(comm, comm->rank == 0 ? look(s) : BQ_OK);
    if (code) return code;
    return bq_comm_agree(comm, comm->rank == 0 ? BQ_OK : look(s));
}

bq_mat bq_run_room(const bq_run *s, int64_t n) {
    int64_t t = s->recipe.calibration.length, h = s->src.arch.model.hidden;
    float *memory = malloc((size_t)(n * t * h) * sizeof *memory);
    BQ_CHECK(memory, "no memory for %ld samples of %ld x %ld values", (long)n, (long)t, (long)h);
    return bq_mat_host(memory, n * t, h, BQ_F32);
}

void bq_run_embed(const bq_run *s, int64_t sample, bool rounded, bq_mat buffer, bq_stream *to, int64_t k) {
    const int32_t *ids = s->calibration.ids + s->recipe.calibration.offset;
    bq_source_embed(&s->src, ids + sample * buffer.rows, rounded, buffer);
    bq_stream_put(to, k, buffer);
}

void bq_run_norms(bq_mat y, float *norm) {
    for (int64_t t = 0; t < y.rows; t++) {
        double sum = 0;
        for (int64_t c = 0; c < y.cols; c++)
            sum += (double)*(float *)bq_mat_at(y, t, c) * *(float *)bq_mat_at(y, t, c);
        norm[t] = sum > 0 ? (float)sqrt(sum) : 1;
    }
}

int64_t bq_run_quantized(const bq_run *s, int64_t *bits) {
    const bq_model *m = &s->src.arch.model;
    const bq_scheme vocabulary[] = {s->src.rounded.embedding, s->src.rounded.head};
    int64_t weights = *bits = 0;
    for (int b = 0; b < m->blocks; b++)
        for (int unit = 0; unit <= bq_source_arch(&s->src, b)->experts; unit++) {
            const bq_layout *layout = bq_run_layout(s, b, unit);
            for (int i = 0; i < layout->arch->linears; i++) {
                const bq_linear *l = &layout->arch->linear[i];
                weights += l->rows * l->cols;
                *bits += bq_scheme_bits(layout->scheme[i], l->rows, l->cols);
            }
        }
    for (int i = 0; i < (bq_source_tied(&s->src) ? 1 : 2); i++)
        if (bq_code_bits(vocabulary[i])) {
            weights += m->vocab * m->hidden;
            *bits += bq_scheme_bits(vocabulary[i], m->vocab, m->hidden);
        }
    return weights;
}

volatile sig_atomic_t bq_stop_wanted;

bool bq_run_stopped(void) {
    bq_heartbeat();
    if (bq_heartbeat_stopped()) bq_stop_wanted = 1;
    if (bq_stop_wanted) bq_heartbeat_stop();
    return bq_stop_wanted;
}

/* x - x is 0, but NaN where x is NaN or infinite. */
void bq_run_ask_finite(bq_run *s, bq_mat y, double *apart) {
    s->dev.op->mse(&s->dev, y, y, 1, (bq_mat){0}, apart);
}

void bq_run_finite(bq_run *s, bq_mat y, int block, int64_t sample, const char *stream) {
    double apart = NAN;
    if (y.place == BQ_DEVICE) {
        bq_run_ask_finite(s, y, &apart);
        s->dev.op->wait(&s->dev);
    }
    bq_run_judge(s, y, apart, block, sample, stream);
}

void bq_run_judge(bq_run *s, bq_mat y, double apart, int block, int64_t sample, const char *stream) {
    const bool fault = bq_fault("stream_nan");
    if (!fault && apart == 0) return;
    if (y.place == BQ_DEVICE) bq_device_fetch(&s->dev, &y);
    float *x = y.data;
    if (fault) x[0] = NAN;
    for (int64_t e = 0; e < y.rows * y.cols; e++)
        if (!isfinite(x[e]))
            bq_refuse_job(BQ_DATA,
                          "%s: block %d/%d: the %s stream of sample %ld has %g at token %ld, channel %ld: "
                          "the weights are damaged, or too large for f32",
                          s->src.dir, block + 1, s->src.arch.model.blocks, stream, (long)sample, (double)x[e],
                          (long)(e / y.cols), (long)(e % y.cols));
}

bool bq_run_all(const bq_run *s, bool mine) { return !bq_comm_stage_any(s->comm, !mine); }

void bq_run_checkpoint(const bq_run *s, int block, int unit, char *path, size_t n) {
    BQ_CHECK(s->latest, "the sweep of block %d's result is not known yet", block);
    if (s->distilled)
        bq_ckpt_path(path, n, s->dir, 0, s->recipe.nphase, block);
    else if (unit)
        bq_ckpt_expert_path(path, n, s->dir, s->latest[block], s->recipe.nphase - 1, block, unit - 1);
    else
        bq_ckpt_path(path, n, s->dir, s->latest[block], s->recipe.nphase - 1, block);
}

const bq_layout *bq_run_layout(const bq_run *s, int block, int unit) {
    return bq_layout_of(&s->layouts, unit ? &s->src.expert : bq_source_core(&s->src, block), block);
}
