/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/gguf_names.h"

#include "base/die.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Both names without ".weight" or ".bias"; where the first one has it, both are whole.  % is the number of a
 * block, # that of an expert.  A row without a second name is BQ_GGUF_BESIDE. */
typedef struct {
    const char *gguf, *checkpoint;
    bq_gguf_change change;
} row;

#define BLOCK "blk.%."
#define LAYER "model.layers.%."

static const row outer[] = {
    {"token_embd", "model.embed_tokens", 0},
    {"output", "lm_head", 0},
    {"rope_freqs", NULL, 0},
    {BLOCK "attn_rot_embd", NULL, 0},
    {0},
};
static const row norms[] = {
    {"output_norm", "model.norm", 0},
    {BLOCK "attn_norm", LAYER "input_layernorm", 0},
    {BLOCK "ffn_norm", LAYER "post_attention_layernorm", 0},
    {0},
};
static const row gemma_norms[] = {
    {"output_norm", "model.norm", BQ_GGUF_PLUS_ONE},
    {BLOCK "attn_norm", LAYER "input_layernorm", BQ_GGUF_PLUS_ONE},
    {BLOCK "attn_q_norm", LAYER "self_attn.q_norm", BQ_GGUF_PLUS_ONE},
    {BLOCK "attn_k_norm", LAYER "self_attn.k_norm", BQ_GGUF_PLUS_ONE},
    {BLOCK "post_attention_norm", LAYER "post_attention_layernorm", BQ_GGUF_PLUS_ONE},
    {BLOCK "ffn_norm", LAYER "pre_feedforward_layernorm", BQ_GGUF_PLUS_ONE},
    {BLOCK "post_ffw_norm", LAYER "post_feedforward_layernorm", BQ_GGUF_PLUS_ONE},
    {0},
};
static const row head_norms[] = {
    {BLOCK "attn_q_norm", LAYER "self_attn.q_norm", 0},
    {BLOCK "attn_k_norm", LAYER "self_attn.k_norm", 0},
    {0},
};
static const row attention[] = {
    {BLOCK "attn_q", LAYER "self_attn.q_proj", 0},
    {BLOCK "attn_k", LAYER "self_attn.k_proj", 0},
    {BLOCK "attn_v", LAYER "self_attn.v_proj", 0},
    {BLOCK "attn_output", LAYER "self_attn.o_proj", 0},
    {0},
};
static const row paired_attention[] = {
    {BLOCK "attn_q", LAYER "self_attn.q_proj", BQ_GGUF_PAIRED},
    {BLOCK "attn_k", LAYER "self_attn.k_proj", BQ_GGUF_PAIRED},
    {BLOCK "attn_v", LAYER "self_attn.v_proj", 0},
    {BLOCK "attn_output", LAYER "self_attn.o_proj", 0},
    {0},
};
static const row mlp[] = {
    {BLOCK "ffn_gate", LAYER "mlp.gate_proj", 0},
    {BLOCK "ffn_up", LAYER "mlp.up_proj", 0},
    {BLOCK "ffn_down", LAYER "mlp.down_proj", 0},
    {0},
};
static const row fused[] = {
    {BLOCK "attn_qkv", LAYER "self_attn.qkv_proj", 0},
    {BLOCK "attn_output", LAYER "self_attn.o_proj", 0},
    {BLOCK "ffn_up", LAYER "mlp.gate_up_proj", 0},
    {BLOCK "ffn_down", LAYER "mlp.down_proj", 0},
    {"rope_factors_long", NULL, 0},
    {"rope_factors_short", NULL, 0},
    {0},
};
static const row mixtral[] = {
    {BLOCK "ffn_gate_inp", LAYER "block_sparse_moe.gate", 0},
    {BLOCK "ffn_gate_exps", LAYER "block_sparse_moe.experts.#.w1", 0},
    {BLOCK "ffn_down_exps", LAYER "block_sparse_moe.experts.#.w2", 0},
    {BLOCK "ffn_up_exps", LAYER "block_sparse_moe.experts.#.w3", 0},
    {0},
};
static const row post_norms[] = {
    {"output_norm", "model.norm", 0},
    {BLOCK "attn_norm", LAYER "input_layernorm", 0},
    {BLOCK "post_attention_norm", LAYER "post_attention_layernorm", 0},
    {0},
};
static const row gpt_oss[] = {
    {BLOCK "attn_sinks.weight", LAYER "self_attn.sinks", 0},
    {BLOCK "ffn_gate_inp", LAYER "mlp.router", 0},
    {0},
};
static const row shared[] = {
    {BLOCK "exp_probs_b.bias", LAYER "mlp.gate.e_score_correction_bias", 0},
    {BLOCK "ffn_gate_shexp", LAYER "mlp.shared_experts.gate_proj", 0},
    {BLOCK "ffn_up_shexp", LAYER "mlp.shared_experts.up_proj", 0},
    {BLOCK "ffn_down_shexp", LAYER "mlp.shared_experts.down_proj", 0},
    {0},
};
static const row experts[] = {
    {BLOCK "ffn_gate_inp", LAYER "mlp.gate", 0},
    {BLOCK "ffn_gate_exps", LAYER "mlp.experts.#.gate_proj", 0},
    {BLOCK "ffn_up_exps", LAYER "mlp.experts.#.up_proj", 0},
    {BLOCK "ffn_down_exps", LAYER "mlp.experts.#.down_proj", 0},
    {0},
};

enum { TABLES = 7 };

static const struct {
    const char *name;
    const row *table[TABLES];
} archs[] = {
    {"llama", {outer, norms, paired_attention, mlp, mixtral}},
    {"qwen2", {outer, norms, attention, mlp}},
    {"qwen3", {outer, norms, attention, head_norms, mlp}},
    {"qwen3moe", {outer, norms, attention, head_norms, experts}},
    {"phi3", {outer, norms, fused}},
    {"gemma3", {outer, gemma_norms, attention, mlp}},
    {"gpt-oss", {outer, post_norms, attention, gpt_oss, experts}},
    {"glm4moe", {outer, post_norms, attention, head_norms, mlp, experts, shared}},
};

const char *bq_gguf_arch_at(int arch) {
    return arch >= 0 && arch < (int)(sizeof archs / sizeof *archs) ? archs[arch].name : NULL;
}

int bq_gguf_arch_find(const char *architecture) {
    int i = 0;
    while (bq_gguf_arch_at(i) && strcmp(archs[i].name, architecture) != 0) i++;
    return bq_gguf_arch_at(i) ? i : -1;
}

/* ---- patterns ---- */

typedef struct {
    int64_t block, expert;
} numbers;

/* Digits without a leading 0, at most six.  Returns how many, 0: it is no such number. */
static size_t digits(const char *text, int64_t *value) {
    size_t n = strspn(text, "0123456789");
    *value = n && n < 7 ? atoll(text) : 0;
    return n > 6 || (n > 1 && *text == '0') ? 0 : n;
}

/* Does the name follow the pattern, up to a suffix unless it is whole? */
static bool follows(const char *name, const char *pattern, bool whole, numbers *n, const char **suffix) {
    for (; *pattern; pattern++) {
        if (*pattern == '%' || *pattern == '#') {
            size_t length = digits(name, *pattern == '%' ? &n->block : &n->expert);
            if (!length) return false;
            name += length;
        } else if (*name++ != *pattern) {
            return false;
        }
    }
    *suffix = name;
    return whole ? !*name : strcmp(name, ".weight") == 0 || strcmp(name, ".bias") == 0;
}

static void compose(char to[256], const char *pattern, numbers n, const char *suffix) {
    size_t at = 0;
    for (; *pattern; pattern++) {
        if (*pattern == '%' || *pattern == '#')
            at += (size_t)snprintf(to + at, 256 - at, "%lld",
                                   (long long)(*pattern == '%' ? n.block : n.expert));
        else
            to[at++] = *pattern;
    }
    snprintf(to + at, 256 - at, "%s", suffix);
}

/* The row that a name follows, NULL where there is none. */
static const row *find(int arch, const char *name, bool gguf, numbers *n, const char **suffix) {
    for (int i = 0; i < TABLES && archs[arch].table[i]; i++) {
        for (const row *r = archs[arch].table[i]; r->gguf; r++) {
            const char *pattern = gguf ? r->gguf : r->checkpoint;
            bool whole = strstr(r->gguf, ".weight") || strstr(r->gguf, ".bias");
            if (pattern && follows(name, pattern, whole, n, suffix)) return r;
        }
    }
    return NULL;
}

bool bq_gguf_name_of(int arch, const char *checkpoint, bq_gguf_name *gguf) {
    numbers n = {0, -1};
    const char *suffix;
    const row *r = find(arch, checkpoint, false, &n, &suffix);
    if (!r) return false;
    compose(gguf->name, r->gguf, n, suffix);
    gguf->expert = strchr(r->checkpoint, '#') ? n.expert : -1;
    gguf->change = r->change;
    return true;
}

bq_gguf_kind bq_gguf_checkpoint_name(int arch, const char *gguf, int64_t expert, bq_gguf_name *checkpoint) {
    numbers n = {0, -1};
    const char *suffix;
    const row *r = find(arch, gguf, true, &n, &suffix);
    if (!r) return BQ_GGUF_UNKNOWN;
    if (!r->checkpoint) return BQ_GGUF_BESIDE;
    bool all = strchr(r->checkpoint, '#') != NULL;
    checkpoint->expert = n.expert = all ? expert : -1;
    checkpoint->change = r->change;
    compose(checkpoint->name, r->checkpoint, n, suffix);
    return all ? BQ_GGUF_EXPERTS : BQ_GGUF_WEIGHT;
}

/* ---- values ---- */

int64_t bq_gguf_paired(int64_t row_or_channel, int64_t head_dim) {
    int64_t head = row_or_channel / head_dim, i = row_or_channel % head_dim, half = head_dim / 2;
    return head * head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
}

/* The only row of a tensor of one dimension, its channels put back. */
static void read_bias(const bq_gguf *g, const bq_tensor *t, int64_t head_dim, bq_mat to) {
    float *stored = malloc((size_t)to.cols * sizeof *stored);
    BQ_CHECK(stored, "no memory for %lld values of '%s'", (long long)to.cols, t->name);
    bq_gguf_read(g, t, 0, 1, bq_mat_host(stored, 1, to.cols, BQ_F32));
    for (int64_t c = 0; c < to.cols; c++) bq_f32(to)[c] = stored[bq_gguf_paired(c, head_dim)];
    free(stored);
}

void bq_gguf_read_as(const bq_gguf *g, const bq_tensor *t, const bq_gguf_name *how, int64_t head_dim,
                     int64_t first, int64_t rows, bq_mat to) {
    int dims = t->dims - (how->expert >= 0);
    int64_t each = dims > 1 ? t->shape[t->dims - 2] : 1, channels = t->dims > 1 ? each : to.cols;
    int64_t skip = how->expert > 0 ? how->expert * each : 0;
    BQ_CHECK(first >= 0 && rows >= 0 && first <= each - rows, "%s: rows %lld + %lld of %lld", t->name,
             (long long)first, (long long)rows, (long long)each);
    if (how->change != BQ_GGUF_PAIRED) {
        bq_gguf_read(g, t, skip + first, rows, to);
    } else {
        BQ_CHECK(head_dim > 0 && head_dim % 2 == 0 && channels % head_dim == 0,
                 "%s: %lld rows of heads of %lld", t->name, (long long)channels, (long long)head_dim);
        for (int64_t r = 0; r < rows; r++) {
            if (t->dims == 1)
                read_bias(g, t, head_dim, to);
            else
                bq_gguf_read(g, t, skip + bq_gguf_paired(first + r, head_dim), 1, bq_mat_rows(to, r, 1));
        }
    }
    for (int64_t r = 0; r < rows && how->change == BQ_GGUF_PLUS_ONE; r++)
        for (int64_t c = 0; c < to.cols; c++) bq_f32(to)[r * to.ld + c] -= 1;
}
