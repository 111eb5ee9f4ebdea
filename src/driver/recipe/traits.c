/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/recipe/traits.h"

#include "block/common/midway.h"

#include <string.h>

unsigned bq_pass_traits(const bq_pass *p) {
    const bq_pass_kind *kind = bq_pass_kind_at(p->kind);
    return kind->traits | (kind->more ? kind->more(p->options) : 0);
}

unsigned bq_phase_traits(const bq_phase *phase) {
    unsigned all = 0;
    for (int i = 0; i < phase->npass; i++) all |= bq_pass_traits(&phase->pass[i]);
    return all;
}

bq_training bq_pass_training(const bq_pass *p, int sweep) {
    const bq_pass_kind *kind = bq_pass_kind_at(p->kind);
    return kind->training ? kind->training(p->options, sweep) : (bq_training){0};
}

const char *bq_pass_remedy(const bq_pass *p) {
    const bq_pass_kind *kind = bq_pass_kind_at(p->kind);
    const char *own = kind->remedy ? kind->remedy(p->options) : NULL;
    const char *other =
        kind->traits & BQ_PASS_QUANTIZES ? "start more ranks a stage" : "take shorter samples";
    return own ? own : other;
}

size_t bq_pass_need(const bq_pass *p, const bq_pass_size *of) {
    const bq_pass_kind *kind = bq_pass_kind_at(p->kind);
    size_t kept = bq_pass_traits(p) & BQ_PASS_KEEPS ? bq_midway_need(of->arch, of->tokens, of->keeps) : 0;
    return kept + (kind->need ? kind->need(p->options, of) : 0);
}

bool bq_pass_advances(const bq_phase *phase, int i) {
    return i + 1 == phase->npass && phase->inputs != BQ_INPUTS_FP &&
           bq_pass_traits(&phase->pass[i]) & BQ_PASS_KEEPS;
}

bool bq_recipe_continues(const bq_recipe *r, int phase, int sweep) {
    return phase + 1 < r->nphase || sweep + 1 < r->sweeps;
}

bool bq_phase_calibrated(const bq_phase *phase) { return bq_phase_traits(phase) & BQ_PASS_CALIBRATED; }

bool bq_phase_reference(const bq_phase *phase) {
    unsigned all = bq_phase_traits(phase);
    return all & BQ_PASS_CALIBRATED &&
           (phase->inputs != BQ_INPUTS_QT || all & (BQ_PASS_TARGETS | BQ_PASS_FP));
}

bool bq_phase_follows(const bq_phase *phase, int segments) {
    return bq_phase_reference(phase) || (bq_phase_calibrated(phase) && segments > 1);
}

int bq_phase_streams(const bq_phase *phase, int segments) {
    if (!bq_phase_calibrated(phase)) return 0;
    return 2 * bq_phase_follows(phase, segments) + (phase->inputs != BQ_INPUTS_FP);
}

int64_t bq_recipe_expert_tokens(const bq_recipe *r) {
    int64_t all = r->calibration.samples * r->calibration.length;
    return all < r->experts.most ? all : r->experts.most;
}

int bq_phase_routes(const bq_phase *phase, int segments) {
    if (!bq_phase_calibrated(phase)) return 0;
    return bq_phase_follows(phase, segments) + (phase->inputs != BQ_INPUTS_FP);
}

bool bq_phase_expert_rows(const bq_phase *phase, bq_stream_id stream) {
    unsigned all = bq_phase_traits(phase);
    if (!(all & BQ_PASS_CALIBRATED)) return false;
    if (stream == BQ_STREAM_TARGET) return all & BQ_PASS_TARGETS;
    if (stream == BQ_STREAM_QT) return phase->inputs != BQ_INPUTS_FP;
    return phase->inputs != BQ_INPUTS_QT || all & (BQ_PASS_FP | BQ_PASS_TARGETS);
}

bool bq_phase_prepares(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= !(bq_pass_traits(&phase->pass[i]) & BQ_PASS_QUANTIZES);
    return any;
}

bool bq_phase_hands_on(const bq_phase *phase) {
    return phase->npass > 0 && phase->inputs != BQ_INPUTS_QT &&
           bq_pass_traits(&phase->pass[0]) & BQ_PASS_HANDS_ON;
}

void bq_phase_title(const bq_phase *phase, char *out, size_t n) {
    out[0] = 0;
    for (int i = 0; i < phase->npass; i++) {
        if (i) strncat(out, "+", n - strlen(out) - 1);
        const bq_pass_kind *kind = bq_pass_kind_at(phase->pass[i].kind);
        const char *suffix = kind->suffix ? kind->suffix(phase->pass[i].options) : NULL;
        strncat(out, kind->name, n - strlen(out) - 1);
        if (suffix) strncat(out, suffix, n - strlen(out) - 1);
    }
}

void bq_recipe_title(const bq_recipe *r, char *out, size_t n) {
    bq_phase_title(&r->phase[r->nphase - 1], out, n);
    if ((r->nphase > 1 || r->distill.steps) && strcmp(out, "rtn") == 0) snprintf(out, n, "result");
}
