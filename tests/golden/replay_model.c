/* SPDX-License-Identifier: Apache-2.0 */
/* Forward and block gradients of whole models against transformers, through the loader and block code of a
 * run. */
#include "golden/replay.h"
#include "golden/rig.h"

#include "base/die.h"

#include <math.h>
#include <string.h>

#define TOLERANCE 1e-5

size_t golden_rig_need(const bq_arch *arch, int64_t tokens) {
    const bq_model *m = &arch->model;
    size_t values =
        (size_t)(m->vocab * m->hidden + tokens * (m->vocab + 4 * m->hidden) + bq_arch_weights(arch));
    return 2 * (bq_block_need(arch) + bq_work_need(arch, tokens, true) + values * sizeof(float)) +
           ((size_t)64 << 20);
}

void golden_rig_open(golden_rig *m, const golden *g, int64_t tokens) {
    *m = (golden_rig){.tokens = tokens};
    golden_require(bq_source_open(&m->src, g->dir));
    const bq_arch *arch = &m->src.arch;
    golden_require(bq_dev_open(&m->dev, "cpu", 2, golden_rig_need(arch, tokens)));
    bq_block_push(&m->blk, arch, &m->dev.mem);
    bq_source_work(&m->src, &m->src.arch, BQ_ANGLES_HF, &m->dev, tokens, true, &m->work);
    m->x = m->work.x, m->y = m->work.y;
    for (int i = 0; i < arch->sites; i++)
        m->dw[i] = bq_arena_push(&m->dev.mem, arch->site[i].rows, arch->site[i].cols, BQ_F32);
}

void golden_rig_close(golden_rig *m) {
    bq_dev_close(&m->dev);
    bq_source_close(&m->src);
}

/* The tensor of that name, of the shape of `have`. */
static void compare(golden *g, golden_report *r, const char *what, const char *name, bq_mat have) {
    golden_compare(golden_row_of(r, what, TOLERANCE, 0), GOLDEN_LARGEST, have,
                   golden_read(g, BQ_F32, have.rows, have.cols, "%s", name), name);
}

static void logits(golden_rig *m, golden *g, golden_report *r) {
    const bq_model *k = &m->src.arch.model;
    bq_mat norm = bq_arena_push(&m->dev.mem, 1, k->hidden, BQ_F32);
    bq_mat head = bq_arena_push(&m->dev.mem, k->vocab, k->hidden, BQ_F32);
    bq_mat out = bq_arena_push(&m->dev.mem, m->tokens, k->vocab, BQ_F32);
    bq_source_head(&m->src, &m->dev, false, norm, head);
    m->dev.op->rmsnorm(&m->dev, m->x, norm, (float)k->eps, m->y);
    m->dev.op->gemm(&m->dev, false, true, 1, m->y, head, 0, out);
    for (int64_t i = 0; i < out.rows * out.cols && k->logit_cap > 0; i++)
        bq_f32(out)[i] = (float)(k->logit_cap * tanh((double)bq_f32(out)[i] / k->logit_cap));
    compare(g, r, "logits", "logits", out);
}

static void forward(golden_rig *m, golden *g, golden_report *r, const int32_t *ids) {
    char name[32];
    bq_source_embed(&m->src, ids, false, m->x);
    for (int b = 0; b < m->src.arch.model.blocks; b++) {
        snprintf(name, sizeof name, "hidden/%d", b);
        compare(g, r, "hidden", name, m->x);
        bq_source_block(&m->src, &m->dev, b, &m->blk);
        bq_block_forward(&m->dev, &m->blk, m->blk.w, &m->work, m->x, m->y);
        m->dev.op->copy(&m->dev, m->y, m->x);
    }
    snprintf(name, sizeof name, "hidden/%d", m->src.arch.model.blocks);
    compare(g, r, "hidden", name, m->x);
    logits(m, g, r);
}

/* Experts as gpt-oss stores them: (E cols, rows), the rows of gate and of up in turn. */
static void stacked(golden_rig *m, golden *g, golden_report *r, bq_role role, const char *name) {
    const bq_arch *arch = &m->src.arch;
    const int site = bq_arch_site(arch, role);
    const bq_site *s = &arch->site[site];
    bq_mat have = bq_arena_push(&m->dev.mem, arch->experts * s->cols, s->rows, BQ_F32);
    for (int e = 0; e < arch->experts; e++)
        for (int64_t i = 0; i < s->rows; i++)
            for (int64_t c = 0; c < s->cols; c++) {
                int64_t each = s->rows / s->linears, at = s->linears * (i % each) + i / each;
                *(float *)bq_mat_at(have, e * s->cols + c, at) =
                    *(float *)bq_mat_at(m->dw[site + 2 * e], i, c);
            }
    compare(g, r, "gradients", name, have);
}

static void gradients(golden_rig *m, golden *g, golden_report *r) {
    const bq_arch *arch = &m->src.arch;
    double block = bq_weights_metadata(g->file, "grad_block") ? golden_number(g, "grad_block") : 0;
    if (!(block >= 0 && block < arch->model.blocks) || block != (int)block)
        bq_refuse_job(BQ_DATA, "%s: grad_block %g: the model has %d blocks", g->path, block,
                      arch->model.blocks);
    bq_mat dy = golden_read(g, BQ_F32, m->x.rows, m->x.cols, "dY");
    m->dev.op->copy(&m->dev, golden_read(g, BQ_F32, m->x.rows, m->x.cols, "hidden/%d", (int)block), m->x);
    bq_source_block(&m->src, &m->dev, (int)block, &m->blk);
    bq_block_forward(&m->dev, &m->blk, m->blk.w, &m->work, m->x, m->y);
    arch = bq_source_arch(&m->src, (int)block);
    char name[160];
    for (int i = 0; i < BQ_EXTRAS; i++) /* the others have none */
        if (arch->extra[i] && (i == BQ_ROUTER || i == BQ_SHARED_GATE))
            m->work.dextra[i] =
                bq_arena_push(&m->dev.mem, m->blk.extra[i].rows, m->blk.extra[i].cols, BQ_F32);
    bq_block_backward(&m->dev, &m->blk, m->blk.w, &m->work, m->x, dy, m->dw, (bq_mat){0});
    for (int i = 0; i < BQ_EXTRAS; i++) {
        if (!m->work.dextra[i].data) continue;
        snprintf(name, sizeof name, "grad/%.*s", (int)strlen(arch->extra[i]) - 7,
                 arch->extra[i]); /* .weight */
        compare(g, r, "gradients", name, m->work.dextra[i]);
    }
    const bool stacks = bq_family_at(arch->model.family)->traits & BQ_FAMILY_STACKED;
    for (int i = 0; i < arch->linears; i++) {
        if (stacks && bq_role_of_expert(arch->site[arch->linear[i].site].role)) continue;
        snprintf(name, sizeof name, "grad/%s", arch->linear[i].module);
        compare(g, r, "gradients", name, bq_linear_view(arch, i, m->dw));
    }
    if (!stacks) return;
    stacked(m, g, r, BQ_EXPERT_GATE_UP, "grad/mlp.experts.gate_up_proj");
    stacked(m, g, r, BQ_EXPERT_DOWN, "grad/mlp.experts.down_proj");
}

void golden_model_run(golden *g, bq_comm *comm, golden_report *r) {
    golden_rig m;
    (void)comm;
    golden_model(g, NULL);
    bq_mat ids = golden_tokens(g);
    golden_rig_open(&m, g, ids.rows * ids.cols);
    golden_check_tokens(g, ids, m.src.arch.model.vocab);
    forward(&m, g, r, ids.data);
    gradients(&m, g, r);
    golden_rig_close(&m);
}
