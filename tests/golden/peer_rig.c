/* SPDX-License-Identifier: Apache-2.0 */
#include "golden/peer_rig.h"

#include "base/die.h"
#include "block/model/rope.h"
#include "io/in/config.h"

#include <string.h>

static const bq_comm alone = {.size = 1, .locals = 1, .nstage = 1, .nreplica = 1};

static bq_mat sample_of(const peer_rig *p, int64_t sample) {
    int64_t values = p->c.tokens * p->arch.model.hidden;
    return bq_mat_host(p->stream + sample * values, p->c.tokens, p->arch.model.hidden, BQ_F32);
}

static bq_mat fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    BQ_CHECK(stream == BQ_STREAM_FP, "a pass that prepares asks for stream %d", stream);
    return sample_of(ctx, sample);
}

/* The metadata says in words what the model is; the reader of config.json checks it. */
static void read_arch(peer_rig *p, int64_t kv_heads) {
    long hidden, inter, blocks, heads, kv, size, vocab;
    double eps, theta;
    char text[600];
    bq_model model;
    const char *words = golden_text(p->g, "model");
    if (sscanf(words,
               "llama: hidden %ld, intermediate %ld, layers %ld, heads %ld, kv heads %ld, head size %ld, "
               "vocabulary "
               "%ld, tied embedding, rms_norm_eps %lf, rope_theta %lf",
               &hidden, &inter, &blocks, &heads, &kv, &size, &vocab, &eps, &theta) != 9)
        bq_refuse_job(BQ_DATA, "%s: metadata 'model' is not understood: '%.200s'", p->g->path, words);
    if (!kv_heads) kv_heads = kv;
    snprintf(text, sizeof text,
             "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": %ld, "
             "\"intermediate_size\": %ld, \"num_hidden_layers\": %ld, \"num_attention_heads\": %ld, "
             "\"num_key_value_heads\": %ld, \"head_dim\": %ld, \"vocab_size\": %ld, \"tie_word_embeddings\": "
             "true, "
             "\"rms_norm_eps\": %.17g, \"rope_theta\": %.17g}",
             hidden, inter, blocks, heads, (long)kv_heads, size, vocab, eps, theta);
    golden_require(bq_config_parse(p->g->path, text, strlen(text), &model));
    p->mha = kv_heads == heads;
    bq_arch_of(&model, &p->arch);
}

/* A tensor of the model: of init_mha/ where the case has other key heads than the model and the tensor is
 * there. */
static void load(const peer_rig *p, const char *name, bq_mat to) {
    char full[200];
    snprintf(full, sizeof full, "init%s/%s", p->mha && golden_has(p->g, "init_mha/%s", name) ? "_mha" : "",
             name);
    golden_convert(p->g, full, to);
}

static void load_block(peer_rig *p) {
    char name[160];
    p->blk.folded = false;
    for (int i = 0; i < p->arch.linears; i++) {
        bq_arch_tensor(&p->arch, name, sizeof name, p->block, p->arch.linear[i].module, "weight");
        load(p, name, bq_linear_view(&p->arch, i, p->blk.w));
    }
    for (int n = 0; n < 2; n++) {
        bq_arch_tensor(&p->arch, name, sizeof name, p->block, p->arch.norm[n], "weight");
        load(p, name, p->blk.norm[n]);
    }
}

static void embed(peer_rig *p, bq_mat ids) {
    const bq_model *m = &p->arch.model;
    size_t row = (size_t)m->hidden * sizeof(float);
    bq_mat table = bq_mat_host(golden_keep(p->g, (size_t)m->vocab * row), m->vocab, m->hidden, BQ_F32);
    load(p, p->arch.embed, table);
    golden_check_tokens(p->g, ids, m->vocab);
    p->stream = golden_keep(p->g, (size_t)(ids.rows * ids.cols) * row);
    for (int64_t i = 0; i < ids.rows * ids.cols; i++) {
        int32_t id = ((const int32_t *)ids.data)[i];
        memcpy(p->stream + i * m->hidden, bq_mat_at(table, id, 0), row);
    }
}

/* Memory of the block, of what its passes hold of all samples, and of what ops take. */
static size_t need(const peer_rig *p, const bq_scheme *scheme, bq_mat ids) {
    bq_autosmooth_options late = {.gqa = BQ_GQA_LATE};
    bq_awq_options duo = {.duo = true};
    for (int m = 0; m < BQ_ROLES; m++) late.inspect[m] = BQ_INSPECT_BLOCK;
    return ((size_t)16 << 20) + bq_block_need(&p->arch) + bq_work_need(&p->arch, ids.cols, false) +
           bq_quantized_need(&p->arch, scheme) + bq_channels_size(&p->arch) +
           bq_smooth_need(&p->arch, ids.rows, 0, 1) +
           bq_autosmooth_need(&p->arch, &late, ids.cols, ids.rows, 0, 1) +
           bq_awq_need(&p->arch, scheme, &duo, ids.cols, ids.rows, 0, 1);
}

void peer_open(peer_rig *p, golden *g, golden_report *r, const char *name, int64_t kv_heads,
               bq_scheme scheme) {
    bq_scheme all[BQ_ARCH_LINEARS];
    *p = (peer_rig){.g = g, .r = r, .name = name};
    read_arch(p, kv_heads);
    bq_mat ids = golden_tokens(g);
    for (int i = 0; i < p->arch.linears; i++) {
        all[i] = scheme;
        if (scheme.group > 0 && p->arch.linear[i].cols % scheme.group)
            bq_refuse_job(BQ_DATA, "%s: groups of %lld do not divide %lld columns", g->path,
                          (long long)scheme.group, (long long)p->arch.linear[i].cols);
    }
    golden_require(bq_dev_open(&p->dev, "cpu", 2, need(p, all, ids)));
    bq_block_push(&p->blk, &p->arch, &p->dev.mem);
    bq_work_push(&p->work, &p->arch, ids.cols, false, &p->dev.mem);
    bq_quantized_push(&p->q, &p->arch, all, &p->dev.mem);
    bq_rope_table(&p->arch.model.rope, BQ_ANGLES_HF, ids.cols, p->work.cos[0], p->work.sin[0]);
    p->c = (bq_pass_context){.dev = &p->dev,
                             .blk = &p->blk,
                             .work = &p->work,
                             .q = &p->q,
                             .comm = &alone,
                             .samples = ids.rows,
                             .tokens = ids.cols,
                             .fetch = fetch,
                             .ctx = p};
    embed(p, ids);
    golden_pass_over(g, "init/%s", p->arch.final_norm); /* behind the last block */
    load_block(p);
}

void peer_close(peer_rig *p) { bq_dev_close(&p->dev); }

bool peer_next(peer_rig *p) {
    if (p->block + 1 >= p->arch.model.blocks) return false;
    load_block(p);
    size_t mark = bq_arena_mark(&p->dev.mem);
    bq_mat y = bq_arena_push(&p->dev.mem, p->c.tokens, p->arch.model.hidden, BQ_F32);
    for (int64_t s = 0; s < p->c.samples; s++) {
        bq_block_forward(&p->dev, &p->blk, p->blk.w, &p->work, sample_of(p, s), y);
        p->dev.op->copy(&p->dev, y, sample_of(p, s));
    }
    bq_arena_reset(&p->dev.mem, mark);
    p->block++;
    load_block(p);
    return true;
}

bq_mat peer_matrix(const peer_rig *p, int m) {
    bq_mat w = p->blk.w[m], copy = bq_mat_host(golden_keep(p->g, bq_mat_bytes(w)), w.rows, w.cols, BQ_F32);
    p->dev.op->copy((bq_dev *)(uintptr_t)&p->dev, w, copy);
    return copy;
}

void peer_final(const peer_rig *p, double limit) {
    char name[300], module[160];
    bq_arch_tensor(&p->arch, module, sizeof module, 0, p->arch.norm[0], "weight");
    if (!golden_has(p->g, "%s/final/%s", p->name, module)) return;
    for (int i = 0; i < p->arch.linears + 2; i++) {
        bool norm = i >= p->arch.linears;
        bq_mat have = norm ? p->blk.norm[i - p->arch.linears] : bq_linear_view(&p->arch, i, p->blk.w);
        bq_arch_tensor(&p->arch, module, sizeof module, p->block,
                       norm ? p->arch.norm[i - p->arch.linears] : p->arch.linear[i].module, "weight");
        snprintf(name, sizeof name, "%.120s/final/%s", p->name, module);
        golden_compare(golden_row_of(p->r, "final weights", limit, 0), GOLDEN_RELATIVE, have,
                       golden_read(p->g, BQ_F32, have.rows, have.cols, "%s", name), name);
    }
}
