#include "driver/methods.h"

const bq_method bq_methods[BQ_PASS_KINDS] = {
    [BQ_PASS_RTN] = {.name = "rtn", .quantizes = true, .asymmetric = true},
    [BQ_PASS_ADASCALE] = {.name = "adascale",
                          .calibrated = true,
                          .reference = true,
                          .quantizes = true,
                          .trains = true,
                          .backward = true},
    [BQ_PASS_SEQMSE] = {.name = "seqmse", .asymmetric = true, .calibrated = true, .quantizes = true},
    [BQ_PASS_LPBQ] = {.name = "lpbq", .quantizes = true},
    [BQ_PASS_GPTQ] = {.name = "gptq", .calibrated = true, .quantizes = true, .asymmetric = true},
    [BQ_PASS_SMOOTHQUANT] = {.name = "smoothquant", .calibrated = true, .hands_on = true, .asymmetric = true},
    [BQ_PASS_AUTOSMOOTH] = {.name = "autosmoothquant",
                            .calibrated = true,
                            .hands_on = true,
                            .asymmetric = true},
    [BQ_PASS_AWQ] = {.name = "awq", .calibrated = true, .hands_on = true, .asymmetric = true},
};

int64_t bq_pass_steps(const bq_pass *p, int sweep) {
    if (p->kind != BQ_PASS_ADASCALE) return 0;
    if (sweep == 0) return p->iterations;
    return p->sweep_iterations ? p->sweep_iterations : (p->iterations + 3) / 4;
}

const char *bq_pass_remedy(const bq_pass *p) {
    if (p->kind == BQ_PASS_GPTQ && !p->gptq.sequential)
        return "set sequential, which takes one matrix at a time";
    if (p->kind == BQ_PASS_ADASCALE && p->batch > 1)
        return "start more ranks a stage, or take a smaller batch";
    if (bq_methods[p->kind].quantizes) return "start more ranks a stage";
    return "take shorter samples";
}

bool bq_pass_keeps(const bq_pass *p) {
    return p->kind == BQ_PASS_SEQMSE || (p->kind == BQ_PASS_GPTQ && p->gptq.sequential);
}

bool bq_pass_advances(const bq_phase *phase, int i) {
    return i + 1 == phase->npass && phase->inputs != BQ_INPUTS_FP && bq_pass_keeps(&phase->pass[i]);
}

bool bq_phase_calibrated(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= bq_methods[phase->pass[i].kind].calibrated;
    return any;
}

bool bq_phase_targets(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= bq_methods[phase->pass[i].kind].reference;
    return any;
}

bool bq_phase_reference(const bq_phase *phase) {
    bool any = phase->inputs != BQ_INPUTS_QT || bq_phase_targets(phase);
    for (int i = 0; i < phase->npass; i++)
        any |= phase->pass[i].kind == BQ_PASS_GPTQ && phase->pass[i].gptq.qep > 0;
    return any && bq_phase_calibrated(phase);
}

bool bq_phase_follows(const bq_phase *phase, int segments) {
    return bq_phase_reference(phase) || (bq_phase_calibrated(phase) && segments > 1);
}

int bq_phase_streams(const bq_phase *phase, int segments) {
    if (!bq_phase_calibrated(phase)) return 0;
    return 2 * bq_phase_follows(phase, segments) + (phase->inputs != BQ_INPUTS_FP);
}

bool bq_phase_trains(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= bq_methods[phase->pass[i].kind].trains;
    return any;
}

bool bq_phase_backward(const bq_phase *phase) {
    bool any = false;
    for (int i = 0; i < phase->npass; i++) any |= bq_methods[phase->pass[i].kind].backward;
    return any;
}

bool bq_phase_hands_on(const bq_phase *phase) {
    return phase->npass > 0 && phase->inputs != BQ_INPUTS_QT && bq_methods[phase->pass[0].kind].hands_on;
}
