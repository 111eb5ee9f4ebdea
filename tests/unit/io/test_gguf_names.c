/* SPDX-License-Identifier: Apache-2.0 */
/* Names of GGUF's tensors both ways, and the rows that its converter put elsewhere. */
#include "gguf_file.h"

#include "io/in/gguf_names.h"
#include "io/in/weights.h"
#include "io/json.h"

static const struct {
    const char *arch, *gguf, *checkpoint;
    int64_t expert;
    bq_gguf_change change;
} pairs[] = {
    {"llama", "token_embd.weight", "model.embed_tokens.weight", -1, 0},
    {"llama", "output.weight", "lm_head.weight", -1, 0},
    {"llama", "output_norm.weight", "model.norm.weight", -1, 0},
    {"llama", "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", -1, BQ_GGUF_PAIRED},
    {"llama", "blk.31.attn_k.bias", "model.layers.31.self_attn.k_proj.bias", -1, BQ_GGUF_PAIRED},
    {"llama", "blk.7.attn_v.weight", "model.layers.7.self_attn.v_proj.weight", -1, 0},
    {"llama", "blk.7.attn_output.weight", "model.layers.7.self_attn.o_proj.weight", -1, 0},
    {"llama", "blk.120.ffn_norm.weight", "model.layers.120.post_attention_layernorm.weight", -1, 0},
    {"llama", "blk.1.ffn_gate.weight", "model.layers.1.mlp.gate_proj.weight", -1, 0},
    {"llama", "blk.1.ffn_gate_inp.weight", "model.layers.1.block_sparse_moe.gate.weight", -1, 0},
    {"llama", "blk.1.ffn_gate_exps.weight", "model.layers.1.block_sparse_moe.experts.5.w1.weight", 5, 0},
    {"llama", "blk.1.ffn_down_exps.weight", "model.layers.1.block_sparse_moe.experts.0.w2.weight", 0, 0},
    {"llama", "blk.1.ffn_up_exps.weight", "model.layers.1.block_sparse_moe.experts.7.w3.weight", 7, 0},
    {"qwen2", "blk.3.attn_q.bias", "model.layers.3.self_attn.q_proj.bias", -1, 0},
    {"qwen3", "blk.3.attn_q_norm.weight", "model.layers.3.self_attn.q_norm.weight", -1, 0},
    {"qwen3moe", "blk.3.ffn_down_exps.weight", "model.layers.3.mlp.experts.127.down_proj.weight", 127, 0},
    {"qwen3moe", "blk.3.ffn_gate_inp.weight", "model.layers.3.mlp.gate.weight", -1, 0},
    {"phi3", "blk.3.attn_qkv.weight", "model.layers.3.self_attn.qkv_proj.weight", -1, 0},
    {"phi3", "blk.3.ffn_up.weight", "model.layers.3.mlp.gate_up_proj.weight", -1, 0},
    {"gemma3", "output_norm.weight", "model.norm.weight", -1, BQ_GGUF_PLUS_ONE},
    {"gemma3", "blk.3.ffn_norm.weight", "model.layers.3.pre_feedforward_layernorm.weight", -1,
     BQ_GGUF_PLUS_ONE},
    {"gemma3", "blk.3.post_attention_norm.weight", "model.layers.3.post_attention_layernorm.weight", -1,
     BQ_GGUF_PLUS_ONE},
    {"gemma3", "blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight", -1, 0},
    {"gpt-oss", "blk.3.attn_sinks.weight", "model.layers.3.self_attn.sinks", -1, 0},
    {"gpt-oss", "blk.3.ffn_gate_inp.bias", "model.layers.3.mlp.router.bias", -1, 0},
    {"gpt-oss", "blk.3.post_attention_norm.weight", "model.layers.3.post_attention_layernorm.weight", -1, 0},
    {"gpt-oss", "blk.3.ffn_up_exps.bias", "model.layers.3.mlp.experts.31.up_proj.bias", 31, 0},
    {"glm4moe", "blk.3.exp_probs_b.bias", "model.layers.3.mlp.gate.e_score_correction_bias", -1, 0},
    {"glm4moe", "blk.3.ffn_gate_inp.weight", "model.layers.3.mlp.gate.weight", -1, 0},
    {"glm4moe", "blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight", -1, 0},
    {"glm4moe", "blk.3.ffn_down_shexp.weight", "model.layers.3.mlp.shared_experts.down_proj.weight", -1, 0},
    {"glm4moe", "blk.3.attn_k_norm.weight", "model.layers.3.self_attn.k_norm.weight", -1, 0},
};

static void both_ways(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        int arch = bq_gguf_arch_find(pairs[i].arch);
        bq_gguf_name name;
        assert_true(bq_gguf_name_of(arch, pairs[i].checkpoint, &name));
        assert_string_equal(name.name, pairs[i].gguf);
        assert_true(name.expert == pairs[i].expert && name.change == pairs[i].change);
        assert_int_equal(bq_gguf_checkpoint_name(arch, pairs[i].gguf, pairs[i].expert, &name),
                         pairs[i].expert >= 0 ? BQ_GGUF_EXPERTS : BQ_GGUF_WEIGHT);
        assert_string_equal(name.name, pairs[i].checkpoint);
        assert_true(name.expert == pairs[i].expert && name.change == pairs[i].change);
    }
}

static void unknown(void **state) {
    (void)state;
    static const char *const gguf[] = {"",
                                       "token_embd",
                                       "token_embd.scale",
                                       "blk.attn_q.weight",
                                       "blk..attn_q.weight",
                                       "blk.01.attn_q.weight",
                                       "blk.-1.attn_q.weight",
                                       "blk.1234567.attn_q.weight",
                                       "blk.1.attn_q.weight.weight",
                                       "blk.1.attn_qkv.weight",
                                       "blk.1.attn_q",
                                       "xtoken_embd.weight",
                                       "blk.1.attn_q_norm.weight",
                                       "blk.99999999999999999999.attn_q.weight"};
    static const char *const checkpoint[] = {"",
                                             "model.layers.0.self_attn.q_proj",
                                             "model.layers.0.self_attn.q_proj.qweight",
                                             "model.layers.0.block_sparse_moe.experts.w1.weight",
                                             "model.layers.0.self_attn.rotary_emb.inv_freq",
                                             "model.layers.1234567.input_layernorm.weight",
                                             "layers.0.input_layernorm.weight"};
    bq_gguf_name name;
    int llama = bq_gguf_arch_find("llama");
    for (size_t i = 0; i < sizeof gguf / sizeof *gguf; i++)
        assert_int_equal(bq_gguf_checkpoint_name(llama, gguf[i], 0, &name), BQ_GGUF_UNKNOWN);
    for (size_t i = 0; i < sizeof checkpoint / sizeof *checkpoint; i++)
        assert_false(bq_gguf_name_of(llama, checkpoint[i], &name));
    assert_int_equal(bq_gguf_checkpoint_name(llama, "rope_freqs.weight", 0, &name), BQ_GGUF_BESIDE);
    int phi3 = bq_gguf_arch_find("phi3");
    assert_int_equal(bq_gguf_checkpoint_name(phi3, "rope_factors_long.weight", 0, &name), BQ_GGUF_BESIDE);
    assert_int_equal(bq_gguf_checkpoint_name(phi3, "blk.0.ffn_gate.weight", 0, &name), BQ_GGUF_UNKNOWN);
    int oss = bq_gguf_arch_find("gpt-oss");
    assert_int_equal(bq_gguf_checkpoint_name(oss, "blk.0.attn_sinks", 0, &name), BQ_GGUF_UNKNOWN);
    assert_int_equal(bq_gguf_checkpoint_name(oss, "blk.0.attn_sinks.weight.weight", 0, &name),
                     BQ_GGUF_UNKNOWN);
    assert_false(bq_gguf_name_of(oss, "model.layers.0.self_attn.sinks.weight", &name));
    assert_int_equal(bq_gguf_arch_find("mamba"), -1);
    assert_null(bq_gguf_arch_at(-1));
}

/* Every name that the package gguf lists for the first six architectures is known and comes back, but for
 * Phi-3's separate q, k and v, which its converter never writes. */
static void lists_of_the_package(void **state) {
    (void)state;
    bq_weights *w;
    json_t *cases, *v;
    int names = 0, arch = 0;
    assert_int_equal(bq_weights_open(&w, BQ_VECTORS "/peer_gguf.safetensors"), BQ_OK);
    const char *text = bq_weights_metadata(w, "cases");
    assert_int_equal(bq_json_parse("cases", text, strlen(text), &cases), BQ_OK);
    for (; arch < 6; arch++) {
        char key[40];
        size_t i;
        snprintf(key, sizeof key, "names/%s", bq_gguf_arch_at(arch));
        const json_t *list = json_object_get(cases, key);
        assert_true(json_array_size(list) > 9);
        json_array_foreach(list, i, v) {
            char full[200];
            bq_gguf_name name, back;
            const char *rest = strstr(json_string_value(v), "{bid}");
            snprintf(full, sizeof full, "%s%s.weight", rest ? "blk.12" : json_string_value(v),
                     rest ? rest + 5 : "");
            bq_gguf_kind kind = bq_gguf_checkpoint_name(arch, full, 3, &name);
            bool separate = strcmp(bq_gguf_arch_at(arch), "phi3") == 0 && strlen(full) == 20 &&
                            strspn(full + 12, "qkv") == 1;
            if (kind == BQ_GGUF_UNKNOWN && !separate) fail_msg("%s: %s is unknown", key, full);
            names++;
            if (kind == BQ_GGUF_UNKNOWN || kind == BQ_GGUF_BESIDE) continue;
            assert_true(bq_gguf_name_of(arch, name.name, &back));
            assert_string_equal(back.name, full);
            assert_int_equal(back.expert, kind == BQ_GGUF_EXPERTS ? 3 : -1);
        }
    }
    assert_int_equal(names, 91);
    json_decref(cases);
    bq_weights_close(w);
}

/* ---- values ---- */

static void pairs_of_channels(void **state) {
    (void)state;
    static const int64_t first[] = {0, 2, 4, 1, 3, 5};
    for (int64_t i = 0; i < 6; i++) {
        assert_int_equal(bq_gguf_paired(i, 6), first[i]);
        assert_int_equal(bq_gguf_paired(12 + i, 6), 12 + first[i]);
    }
}

/* Tensor t: 8 rows of 1 value, 10 ... 17; b: the same as a bias; e: 3 experts of 2 rows; n: a norm. */
static const char values[] = HEAD(4, 1)
    ALIGN(1) "'t' w2 q1 q8 w0 q0 'b' w1 q8 w0 q32 'e' w3 q1 q2 q3 w0 q64 'n' w1 q2 w0 q88 "
             "f10 f11 f12 f13 f14 f15 f16 f17 f10 f11 f12 f13 f14 f15 f16 f17 f0 f1 f2 f3 f4 f5 f1.5 f0.25";

static void rows(void **state) {
    (void)state;
    static const float all[] = {10, 12, 11, 13, 14, 16, 15, 17};
    bq_gguf *g;
    float x[16] = {0};
    assert_int_equal(bq_gguf_open(&g, gguf_save("v.gguf", values)), BQ_OK);
    bq_gguf_name how = {.expert = -1, .change = BQ_GGUF_PAIRED};
    bq_gguf_read_as(g, bq_gguf_find(g, "t"), &how, 4, 0, 8, bq_mat_host(x, 8, 1, BQ_F32));
    assert_memory_equal(x, all, sizeof all);
    bq_mat wide = {x, 3, 1, 2, BQ_F32, BQ_HOST};
    bq_gguf_read_as(g, bq_gguf_find(g, "t"), &how, 4, 3, 3, wide);
    assert_true(x[0] == 13 && x[1] == 12 && x[2] == 14 && x[4] == 16);
    bq_gguf_read_as(g, bq_gguf_find(g, "b"), &how, 4, 0, 1, bq_mat_host(x, 1, 8, BQ_F32));
    assert_memory_equal(x, all, sizeof all);
    how.change = BQ_GGUF_SAME;
    bq_gguf_read_as(g, bq_gguf_find(g, "t"), &how, 0, 1, 2, bq_mat_host(x, 2, 1, BQ_F32));
    assert_true(x[0] == 11 && x[1] == 12);
    for (int64_t e = 0; e < 3; e++) {
        how.expert = e;
        bq_gguf_read_as(g, bq_gguf_find(g, "e"), &how, 0, 1, 1, bq_mat_host(x, 1, 1, BQ_F32));
        assert_true(x[0] == (float)(2 * e + 1));
    }
    how = (bq_gguf_name){.expert = -1, .change = BQ_GGUF_PLUS_ONE};
    bq_gguf_read_as(g, bq_gguf_find(g, "n"), &how, 0, 0, 1, bq_mat_host(x, 1, 2, BQ_F32));
    assert_true(x[0] == 0.5f && x[1] == -0.75f);
    bq_gguf_close(g);
}

static void child(const char *what, const char *path) {
    bq_gguf *g;
    float x[8];
    bq_gguf_name how = {.expert = what[0] == 'e' ? 1 : -1, .change = BQ_GGUF_PAIRED};
    if (bq_gguf_open(&g, path)) _exit(9);
    if (what[0] == 't') bq_gguf_read_as(g, bq_gguf_find(g, "t"), &how, 3, 0, 8, bq_mat_host(x, 8, 1, BQ_F32));
    how.change = BQ_GGUF_SAME;
    bq_gguf_read_as(g, bq_gguf_find(g, "e"), &how, 4, 1, 2, bq_mat_host(x, 2, 1, BQ_F32));
    _exit(0);
}

static void wrong_rows(void **state) {
    (void)state;
    char err[1000];
    const char *path = gguf_save("v.gguf", values);
    assert_int_equal(child_run("t", path, NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "t: 8 rows of heads of 3");
    assert_int_equal(child_run("e", path, NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "e: rows 1 + 2 of 2"); /* the next row is another expert's */
}

int main(int argc, char **argv) {
    if (argc > 2) child(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways),
        cmocka_unit_test(unknown),
        cmocka_unit_test(lists_of_the_package),
        cmocka_unit_test(pairs_of_channels),
        cmocka_unit_test(rows),
        cmocka_unit_test(wrong_rows),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
