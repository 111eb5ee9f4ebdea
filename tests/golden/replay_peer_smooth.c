/* SPDX-License-Identifier: Apache-2.0 */
/* SmoothQuant, Auto-SmoothQuant and AWQ against llm-compressor and AMD Quark on a tiny Llama with loud
 * channels: statistics, losses, choices, scales, final weights. */
#include "golden/peer_rig.h"
#include "golden/replay.h"

#include "base/die.h"

#include <math.h>
#include <string.h>

static void note_folded(const peer_rig *p) {
    golden_note(golden_codes_of(p->r, "unfolded blocks", 0, 0), p->blk.folded ? 0 : 1, "%s block %d", p->name,
                p->block);
}

static void relative(const peer_rig *p, const char *what, double limit, int entry, const float *have,
                     bq_mat want) {
    char at[200];
    snprintf(at, sizeof at, "%.120s/%d/%d", p->name, p->block, entry);
    golden_compare(golden_row_of(p->r, what, limit, 0), GOLDEN_RELATIVE,
                   bq_mat_host((float *)(uintptr_t)have, want.rows, want.cols, BQ_F32), want, at);
}

static bq_mat vector(const peer_rig *p, const char *what, int entry, int64_t cols) {
    return golden_read(p->g, BQ_F32, 1, cols, "%s/%s/%d/%d", p->name, what, p->block, entry);
}

/* ---- SmoothQuant ---- */

/* The scale of a norm: what it was over what it is. */
static void smooth_block(peer_rig *p, const bq_smooth_options *o) {
    int64_t n = p->arch.model.hidden;
    bq_mat act[BQ_SITES];
    float *norm[2], *s = golden_keep(p->g, (size_t)n * sizeof *s);
    size_t mark = bq_arena_mark(&p->dev.mem);
    bq_channels_push(&p->dev, &p->arch, act);
    bq_channels(&p->c, o->statistic, act, (bq_onlooker){0});
    for (int e = 0; e < 2; e++)
        norm[e] =
            memcpy(golden_keep(p->g, (size_t)n * sizeof *s), p->blk.norm[e].data, (size_t)n * sizeof *s);
    bq_pass_smoothquant(&p->c, o);
    for (int e = 0; e < 2; e++) {
        relative(p, "ranges", 1e-5, e, act[e ? BQ_GATE_UP : BQ_QKV].data, vector(p, "range", e, n));
        for (int64_t i = 0; i < n; i++) s[i] = norm[e][i] / bq_f32(p->blk.norm[e])[i];
        relative(p, "scales", 1e-5, e, s, vector(p, "scale", e, n));
    }
    bq_arena_reset(&p->dev.mem, mark);
    note_folded(p);
    peer_final(p, 1e-5);
}

void golden_smoothquant(golden *g, bq_comm *comm, golden_report *r) {
    json_t *cases = golden_json(g, "cases"), *settings;
    const char *name;
    (void)comm;
    json_object_foreach(cases, name, settings) {
        static peer_rig p;
        const json_t *strength = json_object_get(settings, "smoothing_strength");
        bool alpha = json_is_number(strength);
        bq_smooth_form form = {alpha ? BQ_SMOOTH_ALPHA : BQ_SMOOTH_LOG,
                               alpha ? json_number_value(strength) : 0.5, 1e-5, 2, 0};
        bq_smooth_options o = {BQ_CHANNEL_RANGE, form, BQ_ENTRIES_NORMS, true};
        peer_open(&p, g, r, name, 0, (bq_scheme){4, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0});
        do smooth_block(&p, &o);
        while (peer_next(&p));
        peer_close(&p);
    }
    json_decref(cases);
}

/* ---- the searches ---- */

/* Choice and losses of one entry.  The first candidate scales nothing: bfloat16 weights then lie on ties
 * of their grids, which each program rounds its own way; first is its limit.  A choice may differ where
 * the peer's losses differ by less than `tie`. */
static void search(const peer_rig *p, int m, const bq_scales_result *have, bq_mat losses, double first,
                   double tie) {
    const double *want = losses.data;
    int least = 0, n = (int)losses.cols, best = have->best[m];
    for (int i = 0; i < n; i++) {
        double d = fabs(have->loss[m][i] - want[i]) / want[i];
        if (want[i] < want[least]) least = i;
        golden_note(i ? golden_row_of(p->r, "losses", 2e-5, 0)
                      : golden_row_of(p->r, "losses unscaled", first, 0),
                    d, "%s/%d/%d candidate %d", p->name, p->block, m, i);
    }
    double off = best == least ? 0 : best < 0 || best >= n ? INFINITY : want[best] / want[least] - 1;
    golden_note(golden_row_of(p->r, "choices", tie, 0), off, "%s/%d/%d: candidate %d, not %d", p->name,
                p->block, m, best, least);
}

/* The scale of entry m that was folded, from its own columns: by the largest weight of each. */
static float *folded_scale(const peer_rig *p, int m, bq_mat before) {
    float *s = golden_keep(p->g, (size_t)before.cols * sizeof *s);
    for (int64_t c = 0; c < before.cols; c++) {
        int64_t row = 0;
        for (int64_t i = 1; i < before.rows; i++)
            if (fabsf(*(float *)bq_mat_at(before, i, c)) > fabsf(*(float *)bq_mat_at(before, row, c)))
                row = i;
        s[c] = *(float *)bq_mat_at(p->blk.w[m], row, c) / *(float *)bq_mat_at(before, row, c);
    }
    return s;
}

/* Quark keeps the scale that it searched; what it applies to v and o is the largest of the heads that
 * share one. */
static void group_heads(const bq_model *m, bq_mat scale) {
    int64_t size = m->head_dim, group = m->heads / m->kv_heads;
    float *s = scale.data;
    for (int64_t kv = 0; kv < m->kv_heads; kv++)
        for (int64_t c = 0; c < size; c++) {
            float most = 0;
            for (int64_t h = kv * group; h < (kv + 1) * group; h++) most = fmaxf(most, s[h * size + c]);
            for (int64_t h = kv * group; h < (kv + 1) * group; h++) s[h * size + c] = most;
        }
}

/* late: the peer groups the scales of o after the search.  Rows of v and up are divided by other entries'
 * scales; those of q and gate are not. */
static void scales(const peer_rig *p, int m, bq_mat before, bool late) {
    const bq_model *k = &p->arch.model;
    if (m == BQ_QKV) before.rows = k->heads * k->head_dim;
    if (m == BQ_GATE_UP) before.rows = k->inter;
    bq_mat want = vector(p, "scale", m, before.cols);
    if (late && m == BQ_O) group_heads(k, want);
    relative(p, "scales", 2e-5, m, folded_scale(p, m, before), want);
}

static bq_mat losses_of(const peer_rig *p, int m, int64_t candidates) {
    return golden_read(p->g, BQ_F64, 1, candidates, "%s/losses/%d/%d", p->name, p->block, m);
}

/* ---- Auto-SmoothQuant ---- */

enum { RATIOS = 10 }; /* that bq_pass_autosmooth tries */

static void autosmooth_case(golden *g, golden_report *r, const char *name, int64_t kv, bq_distance loss,
                            bq_scheme scheme) {
    static peer_rig p;
    bq_scales_result result;
    bq_mat before[BQ_SITES];
    peer_open(&p, g, r, name, kv, scheme);
    bool late = !p.mha;
    bq_autosmooth_options o = {loss,
                               late ? BQ_GQA_LATE : BQ_GQA_GROUP,
                               {BQ_INSPECT_MODULE, BQ_INSPECT_SELF, BQ_INSPECT_MODULE, BQ_INSPECT_SELF},
                               16,
                               BQ_SEARCH_ALL};
    bq_mat losses =
        golden_read(g, BQ_F64, (int64_t)p.arch.model.blocks * p.arch.sites, RATIOS, "%s/losses", name);
    do {
        for (int m = 0; m < p.arch.sites; m++) before[m] = peer_matrix(&p, m);
        bq_pass_autosmooth(&p.c, &o, &result);
        for (int m = 0; m < p.arch.sites; m++) {
            search(&p, m, &result, bq_mat_rows(losses, p.block * p.arch.sites + m, 1), 1e-2, 1e-2);
            scales(&p, m, before[m], late);
        }
        peer_final(&p, 2e-5);
    } while (peer_next(&p));
    peer_close(&p);
}

/* A case is (key heads, loss, weights); of the weights only uint4 has a counterpart. */
void golden_autosmooth(golden *g, bq_comm *comm, golden_report *r) {
    static const char *const losses[] = {
        [BQ_DISTANCE_MAE] = "MAE", [BQ_DISTANCE_MSE] = "MSE", [BQ_DISTANCE_RMSE] = "RMSE"};
    json_t *cases = golden_json(g, "cases"), *settings;
    const char *name, *words = golden_text(g, "uint4");
    long group;
    (void)comm;
    if (sscanf(words, "asymmetric, group %ld along the input, weights only", &group) != 1)
        bq_refuse_job(BQ_DATA, "%s: metadata 'uint4' is not understood: '%.200s'", g->path, words);
    json_object_foreach(cases, name, settings) {
        const char *loss = json_string_value(json_array_get(settings, 1)),
                   *type = json_string_value(json_array_get(settings, 2));
        int d = 0;
        while (d < 3 && (!loss || strcmp(loss, losses[d]) != 0)) d++;
        golden_pass_over(g, "%s/ratio", name); /* it follows from the losses */
        if (d < 3 && type && strcmp(type, "uint4") == 0) {
            autosmooth_case(g, r, name, json_integer_value(json_array_get(settings, 0)), (bq_distance)d,
                            (bq_scheme){4, group, false, BQ_F32, BQ_GRID_AIMET, 1, 0});
        } else {
            golden_pass_over(g, "%s/", name);
            r->left++;
        }
    }
    json_decref(cases);
}

/* ---- AWQ ---- */

/* Scales and zero points of round to nearest on the prepared weights: of a linear's zero points one may
 * differ. */
static void grids(peer_rig *p) {
    bq_pass_rtn(&p->c);
    for (int i = 0; i < p->arch.linears; i++) {
        const bq_linear *l = &p->arch.linear[i];
        char module[160], name[300];
        int64_t groups = bq_linear_groups(&p->arch, p->q.scheme, i), n = l->rows * groups, differ = 0;
        bq_arch_tensor(&p->arch, module, sizeof module, p->block, l->module, "weight");
        snprintf(name, sizeof name, "%.120s/final/%s", p->name, module);
        bq_mat scale = golden_read(p->g, BQ_F32, n, 1, "%s_scale", name),
               zero = golden_read(p->g, BQ_I8, n, 1, "%s_zero_point", name);
        golden_compare(golden_row_of(p->r, "grids", 1e-5, 0), GOLDEN_RELATIVE, p->q.scale[i], scale, name);
        for (int64_t k = 0; k < n; k++)
            differ += bq_f32(p->q.zero[i])[k] != (float)((const int8_t *)zero.data)[k];
        golden_note(golden_row_of(p->r, "unlike zero points of a linear", 1, 0), (double)differ, "%s", name);
    }
}

static void awq_case(golden *g, golden_report *r, const char *name, int64_t kv, bool duo, bq_scheme scheme) {
    static peer_rig p;
    bq_awq_options o = {.duo = duo, .to_one = true, .gqa = BQ_GQA_SKIP};
    bq_scales_result result;
    bq_mat before[BQ_SITES];
    peer_open(&p, g, r, name, kv, scheme);
    do {
        for (int m = 0; m < p.arch.sites; m++) before[m] = peer_matrix(&p, m);
        bq_pass_awq(&p.c, &o, &result);
        for (int m = 0; m < p.arch.sites; m++) {
            if (m == BQ_O && !p.mha) continue; /* the peer leaves it unscaled, too */
            search(&p, m, &result, losses_of(&p, m, BQ_CANDIDATES), 1.5e-2, 0);
            scales(&p, m, before[m], false);
        }
        peer_final(&p, 1e-5);
        if (golden_has(g, "%s/final/%s", name, "model.layers.0.self_attn.q_proj.weight_scale")) grids(&p);
    } while (peer_next(&p));
    peer_close(&p);
}

/* A case is (key heads, duo). */
void golden_awq(golden *g, bq_comm *comm, golden_report *r) {
    json_t *cases = golden_json(g, "cases"), *settings;
    const char *name, *words = golden_text(g, "quantizer");
    int bits;
    long group;
    (void)comm;
    if (sscanf(words, "int%d asymmetric group %ld, minmax, zero points signed", &bits, &group) != 2 ||
        bits < 2 || bits > 8)
        bq_refuse_job(BQ_DATA, "%s: metadata 'quantizer' is not understood: '%.200s'", g->path, words);
    json_object_foreach(cases, name, settings) {
        golden_pass_over(g, "%s/grid", name); /* the candidates, of which the losses are */
        awq_case(g, r, name, json_integer_value(json_array_get(settings, 0)),
                 json_is_true(json_array_get(settings, 1)),
                 (bq_scheme){bits, group, false, BQ_F32, BQ_GRID_AIMET, 1, 0});
    }
    json_decref(cases);
}
