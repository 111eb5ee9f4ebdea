#include "io/in/config.h"

#include "base/die.h"
#include "base/family.h"
#include "io/json.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    bq_rope_kind kind;
} ropes[] = {
    {"default", BQ_ROPE_DEFAULT}, {"linear", BQ_ROPE_LINEAR},
    {"llama3", BQ_ROPE_LLAMA3},   {"longrope", BQ_ROPE_LONG},
    {"su", BQ_ROPE_LONG},         {"yarn", BQ_ROPE_LONG}, /* Phi-3's older names */
};

/* ---- family ---- */

static bool has_architecture(const json_t *list, const char *name) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) {
        if (json_is_string(v) && strcmp(json_string_value(v), name) == 0) return true;
    }
    return false;
}

/* text = "llama (LlamaForCausalLM; SmolLM2 is one), phi3 (Phi3ForCausalLM)", say. */
static void list_families(char *text, size_t size) {
    size_t n = 0;
    const bq_family *f;
    for (int i = 0; (f = bq_family_at(i)) && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%s (%s%s%s)", i ? ", " : "", f->type, f->architecture,
                              f->members ? "; " : "", f->members ? f->members : "");
}

/* model_type decides.  Where it is absent, the architecture does.  Where both are given, they must agree. */
static int find_family(bq_json *j) {
    const json_t *list = json_object_get(j->object, "architectures");
    const char *type = NULL;
    const bq_family *f;
    char known[512];
    bq_json_text(j, "model_type", &type);
    for (int i = 0; !j->status && (f = bq_family_at(i)); i++) {
        bool named = has_architecture(list, f->architecture);
        if (type ? strcmp(type, f->type) == 0 && (named || json_array_size(list) == 0) : named) return i;
    }
    const char *first = json_string_value(json_array_get(list, 0));
    list_families(known, sizeof known);
    bq_json_refuse(j, "model_type", "'%.60s' (%.60s) is not known; known are %s", type ? type : "",
                   first ? first : "no architecture", known);
    return -1;
}

static void refuse_unusual(bq_json *j, const bq_family *f) {
    const char *act = "silu";
    bool interleaved = false, unsupported = false;
    if (bq_json_has(j, "quantization_config") || bq_json_has(j, "compression_config")) {
        bq_json_refuse(j, "quantization_config",
                       "this checkpoint is quantized already; start from the unquantized model");
    }
    bq_json_text(j, "hidden_act", &act);
    if (strcmp(act, "silu") != 0) bq_json_refuse(j, "hidden_act", "'%.60s' is not silu", act);
    bq_json_bool(j, "rope_interleaved", &interleaved);
    if (interleaved) bq_json_refuse(j, "rope_interleaved", "interleaved rotary channels are not supported");
    if (f->unsupported) bq_json_bool(j, f->unsupported, &unsupported);
    if (unsupported) bq_json_refuse(j, f->unsupported, "is true, which is not supported for %s", f->type);
}

/* ---- sizes ---- */

static void need_int(bq_json *j, const char *key, int64_t high, int64_t *value) {
    bq_json_need(j, key);
    bq_json_int(j, key, 1, high, value);
}

static void read_sizes(bq_json *j, const bq_family *f, bq_model *m) {
    int64_t blocks = 1;
    m->hidden = m->inter = m->vocab = m->heads = 1; /* so that nothing divides by 0 after a refusal */
    need_int(j, "hidden_size", BQ_SIZE_MAX, &m->hidden);
    need_int(j, "intermediate_size", BQ_SIZE_MAX, &m->inter);
    need_int(j, "vocab_size", BQ_SIZE_MAX, &m->vocab);
    need_int(j, "num_hidden_layers", BQ_BLOCKS_MAX, &blocks);
    need_int(j, "num_attention_heads", BQ_BLOCKS_MAX, &m->heads);
    m->blocks = (int)blocks;
    m->kv_heads = m->heads;
    bq_json_int(j, "num_key_value_heads", 1, m->heads, &m->kv_heads);
    if (m->heads % m->kv_heads) {
        bq_json_refuse(j, "num_key_value_heads", "%lld does not divide num_attention_heads %lld",
                       (long long)m->kv_heads, (long long)m->heads);
    }
    if (!bq_json_has(j, "head_dim") && m->hidden % m->heads) {
        bq_json_refuse(j, "hidden_size",
                       "%lld is not a multiple of num_attention_heads %lld, and head_dim is not given",
                       (long long)m->hidden, (long long)m->heads);
    }
    m->head_dim = m->hidden / m->heads;
    bq_json_int(j, "head_dim", 2, BQ_SIZE_MAX, &m->head_dim);
    if (m->head_dim < 2 || m->head_dim % 2 || m->head_dim * m->heads > BQ_SIZE_MAX) {
        bq_json_refuse(j, "head_dim", "%lld is odd or out of range", (long long)m->head_dim);
    }
    m->max_position = f->max_position;
    bq_json_int(j, "max_position_embeddings", 1, (int64_t)1 << 40, &m->max_position);
    if (f->config & BQ_CONFIG_WINDOW) bq_json_int(j, "sliding_window", 1, (int64_t)1 << 40, &m->window);
    bq_json_need(j, "rms_norm_eps");
    bq_json_real(j, "rms_norm_eps", FLT_MIN, 1, &m->eps);
    bq_json_bool(j, "tie_word_embeddings", &m->tied);
    if (f->config & BQ_CONFIG_BIASES) bq_json_bool(j, "attention_bias", &m->attention_bias);
    if (f->config & BQ_CONFIG_BIASES) bq_json_bool(j, "mlp_bias", &m->mlp_bias);
}

/* ---- rope ---- */

static void read_kind(bq_json *d, const bq_family *f, bq_rope *rope) {
    const char *name = NULL;
    bq_json_text(d, "type", &name);
    bq_json_text(d, "rope_type", &name);
    if (!name && bq_json_has(d, "factor")) bq_json_refuse(d, "rope_type", "is missing beside a factor");
    if (!name || d->status) return; /* the default */
    for (int i = 0; i < (int)(sizeof ropes / sizeof *ropes); i++) {
        if (strcmp(ropes[i].name, name) != 0 || !(f->ropes & 1u << ropes[i].kind)) continue;
        rope->kind = ropes[i].kind;
        return;
    }
    bq_json_refuse(d, "rope_type", "'%.60s' is not known for %s", name, f->type);
}

/* Number of rotary channels: the first int(head_dim * partial) of a head. */
static void read_dim(bq_json *j, bq_json *d, const bq_family *f, const bq_model *m, bq_rope *rope) {
    double partial = 1;
    bq_json_real(j, "partial_rotary_factor", 0, 1, &partial);
    bq_json_join(d, j);
    bq_json_real(d, "partial_rotary_factor", 0, 1, &partial);
    rope->dim = (int64_t)((double)m->head_dim * partial);
    if (!(f->config & BQ_CONFIG_PARTIAL) && rope->dim != m->head_dim) {
        bq_json_refuse(d, "partial_rotary_factor", "%g is not supported for %s", partial, f->type);
    }
    if (rope->dim < 2 || rope->dim % 2 || rope->dim / 2 > BQ_ROPE_MAX) {
        bq_json_refuse(d, "partial_rotary_factor", "%lld rotary channels: they must be even, 2 .. %d",
                       (long long)rope->dim, 2 * BQ_ROPE_MAX);
    }
}

static void read_llama3(bq_json *d, bq_rope *rope) {
    static const char *const key[] = {"factor", "low_freq_factor", "high_freq_factor",
                                      "original_max_position_embeddings"};
    double *to[] = {&rope->factor, &rope->low, &rope->high, &rope->original};
    for (int i = 0; i < 4; i++) {
        bq_json_need(d, key[i]);
        bq_json_real(d, key[i], i == 0 || i == 3 ? 1 : 1e-6, 1e12, to[i]);
    }
    if (rope->low >= rope->high) {
        bq_json_refuse(d, "high_freq_factor", "%g is not above low_freq_factor %g", rope->high, rope->low);
    }
}

/* As transformers' Phi3 does: the original length is the one at top level, whatever the rope's own object
 * says. */
static void read_long(bq_json *j, bq_json *d, const bq_model *m, bq_rope *rope) {
    rope->original = 4096;
    bq_json_real(j, "original_max_position_embeddings", 2, 1e12, &rope->original);
    bq_json_join(d, j);
    if (d->status) return;
    bq_json_reals(d, "short_factor", 1e-6, 1e9, rope->dim / 2, rope->short_factor);
    bq_json_reals(d, "long_factor", 1e-6, 1e9, rope->dim / 2, rope->long_factor);
    rope->factor = (double)m->max_position / rope->original;
    bq_json_real(d, "factor", 1e-6, 1e12, &rope->factor);
    if (rope->factor > 1) rope->attention = sqrt(1 + log(rope->factor) / log(rope->original));
    bq_json_real(d, "attention_factor", 1e-6, 1e6, &rope->attention);
}

/* If both schemas are there, rope_scaling wins, as in transformers. */
static void read_rope(bq_json *j, const bq_family *f, bq_model *m) {
    bq_rope *rope = &m->rope;
    char prefix[64];
    const char *key = bq_json_has(j, "rope_scaling") ? "rope_scaling" : "rope_parameters";
    bq_json d = bq_json_object(j, key, prefix);
    *rope = (bq_rope){.kind = BQ_ROPE_DEFAULT,
                      .theta = 1e4,
                      .factor = 1,
                      .low = 1,
                      .high = 1,
                      .attention = 1,
                      .original = (double)m->max_position};
    bq_json_real(j, "rope_theta", 1, 1e18, &rope->theta);
    bq_json_join(&d, j);
    bq_json_real(&d, "rope_theta", 1, 1e18, &rope->theta);
    read_kind(&d, f, rope);
    read_dim(j, &d, f, m, rope);
    if (rope->kind == BQ_ROPE_LINEAR) {
        bq_json_need(&d, "factor");
        bq_json_real(&d, "factor", 1e-6, 1e12, &rope->factor);
    }
    if (rope->kind == BQ_ROPE_LLAMA3) read_llama3(&d, rope);
    if (rope->kind == BQ_ROPE_LONG) read_long(j, &d, m, rope);
    bq_json_join(j, &d);
}

/* ---- */

static int read_object(const json_t *object, const char *path, bq_model *m) {
    bq_json j = bq_json_of(object, path);
    *m = (bq_model){0};
    m->family = find_family(&j);
    if (m->family < 0) return j.status;
    const bq_family *f = bq_family_at(m->family);
    refuse_unusual(&j, f);
    read_sizes(&j, f, m);
    read_rope(&j, f, m);
    return j.status;
}

int bq_config_parse(const char *path, const char *text, size_t bytes, bq_model *model) {
    json_t *object;
    int rc = bytes > BQ_CONFIG_MAX ? bq_refuse(BQ_DATA, "%s: too large", path)
                                   : bq_json_parse(path, text, bytes, &object);
    if (rc) return rc;
    rc = read_object(object, path, model);
    json_decref(object);
    return rc;
}

int bq_config_of(const bq_weights *w, bq_model *model) {
    const char *path;
    const json_t *object = bq_weights_config(w, &path);
    return object ? read_object(object, path, model) : bq_refuse(BQ_DATA, "'%s' is not there", path);
}
