/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/config_blocks.h"

#include "base/die.h"
#include "base/family.h"
#include "io/in/fp8.h"
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
    {"su", BQ_ROPE_LONG},         {"yarn", BQ_ROPE_LONG},     /* Phi-3's older names; the kinds are apart */
    {"yarn", BQ_ROPE_YARN},       {"mrope", BQ_ROPE_DEFAULT}, /* which differs for images alone */
};

/* ---- keys ---- */

/* Of all families; a family's own row of the same name counts instead (family.h). */
static const bq_key common[] = {
    {"hidden_act", BQ_KEY_NAME, .at = BQ_NOWHERE, .value = "silu"},
    {"rope_interleaved", BQ_KEY_BOOL, .at = BQ_NOWHERE, .value = "false"},
    {"hidden_size", BQ_KEY_I64, BQ_AT(bq_model, hidden), .min = 1, .max = BQ_SIZE_MAX},
    {"intermediate_size", BQ_KEY_I64, BQ_AT(bq_model, inter), .min = 1, .max = BQ_SIZE_MAX},
    {"vocab_size", BQ_KEY_I64, BQ_AT(bq_model, vocab), .min = 1, .max = BQ_SIZE_MAX},
    {"num_hidden_layers", BQ_KEY_INT, BQ_AT(bq_model, blocks), .min = 1, .max = BQ_BLOCKS_MAX},
    {"num_attention_heads", BQ_KEY_I64, BQ_AT(bq_model, heads), .min = 1, .max = BQ_BLOCKS_MAX},
    {"num_key_value_heads", BQ_KEY_I64, BQ_AT(bq_model, kv_heads), .value = "0", .min = 1,
     .max = BQ_BLOCKS_MAX},
    {"head_dim", BQ_KEY_I64, BQ_AT(bq_model, head_dim), .value = "0", .min = 2, .max = BQ_SIZE_MAX},
    {"max_position_embeddings", BQ_KEY_I64, BQ_AT(bq_model, max_position), .value = "2048", .min = 1,
     .max = 0x1p40, .unhashed = true},
    {"rms_norm_eps", BQ_KEY_REAL, BQ_AT(bq_model, eps), .min = FLT_MIN, .max = 1},
    {"tie_word_embeddings", BQ_KEY_BOOL, BQ_AT(bq_model, tied), .value = "false"},
    {"rope_theta", BQ_KEY_REAL, BQ_AT(bq_model, rope.theta), .value = "1e4", .min = 1, .max = 1e18},
    {"partial_rotary_factor", BQ_KEY_REAL, .at = BQ_NOWHERE, .value = "1", .max = 1},
    {0}};

/* Of the rope's own object, by its kind.  Longrope, yarn: 0 is computed later. */
static const bq_key none[] = {{0}};
static const bq_key linear[] = {{"factor", BQ_KEY_REAL, BQ_AT(bq_rope, factor), .min = 1e-6, .max = 1e12},
                                {0}};
static const bq_key llama3[] = {
    {"factor", BQ_KEY_REAL, BQ_AT(bq_rope, factor), .min = 1, .max = 1e12},
    {"low_freq_factor", BQ_KEY_REAL, BQ_AT(bq_rope, low), .min = 1e-6, .max = 1e12},
    {"high_freq_factor", BQ_KEY_REAL, BQ_AT(bq_rope, high), .min = 1e-6, .max = 1e12},
    {"original_max_position_embeddings", BQ_KEY_REAL, BQ_AT(bq_rope, original), .min = 1, .max = 1e12},
    {0}};
static const bq_key longrope[] = {
    {"factor", BQ_KEY_REAL, BQ_AT(bq_rope, factor), .value = "0", .min = 1e-6, .max = 1e12},
    {"attention_factor", BQ_KEY_REAL, BQ_AT(bq_rope, attention), .value = "0", .min = 1e-6, .max = 1e6},
    {0}};
static const bq_key yarn[] = {
    {"factor", BQ_KEY_REAL, BQ_AT(bq_rope, factor), .value = "0", .min = 1e-6, .max = 1e12},
    {"original_max_position_embeddings", BQ_KEY_REAL, BQ_AT(bq_rope, original), .value = "0", .min = 1,
     .max = 1e12},
    {"beta_fast", BQ_KEY_REAL, BQ_AT(bq_rope, high), .value = "32", .min = 1e-6, .max = 1e12},
    {"beta_slow", BQ_KEY_REAL, BQ_AT(bq_rope, low), .value = "1", .min = 1e-6, .max = 1e12},
    {"truncate", BQ_KEY_BOOL, BQ_AT(bq_rope, truncate), .value = "true"},
    {"attention_factor", BQ_KEY_REAL, BQ_AT(bq_rope, attention), .value = "0", .min = 1e-6, .max = 1e6},
    {"mscale", BQ_KEY_REAL, BQ_AT(bq_rope, mscale), .value = "0", .max = 1e6, .unhashed = true},
    {"mscale_all_dim", BQ_KEY_REAL, BQ_AT(bq_rope, mscale_all), .value = "0", .max = 1e6, .unhashed = true},
    {0}};
static const bq_key *const rope_keys[] = {none, linear, llama3, longrope, yarn}; /* bq_rope_kind */

/* Key i of a family, NULL behind the last. */
static const bq_key *key_at(const bq_family *f, int i) {
    const bq_key *k = f->config, *own;
    for (; k->name; k++)
        if (i-- == 0) return k;
    for (k = common; k->name; k++) {
        for (own = f->config; own->name && strcmp(own->name, k->name);) own++;
        if (!own->name && i-- == 0) return k;
    }
    return NULL;
}

/* Fields as numbers: all that files give and sizes allow are exact. */
static double get(const bq_key *k, const void *base) {
    const void *at = (const char *)base + k->at;
    switch (k->type) {
    case BQ_KEY_INT: return *(const int *)at;
    case BQ_KEY_I64: return (double)*(const int64_t *)at;
    case BQ_KEY_BOOL: return *(const bool *)at;
    default: return *(const double *)at;
    }
}

static void put(const bq_key *k, void *base, double x) {
    void *at = (char *)base + k->at;
    switch (k->type) {
    case BQ_KEY_INT: *(int *)at = (int)x; break;
    case BQ_KEY_I64: *(int64_t *)at = (int64_t)x; break;
    case BQ_KEY_BOOL: *(bool *)at = x != 0; break;
    default: *(double *)at = x;
    }
}

static double default_of(const bq_key *k) {
    return !k->value ? 0 : strcmp(k->value, "true") == 0 ? 1 : strtod(k->value, NULL);
}

static void set_default(const bq_key *k, void *base) {
    if (k->at != BQ_NOWHERE) put(k, base, default_of(k));
}

/* Read a key into its field, which stays as it is where the key is absent. */
static void take(bq_json *j, const bq_family *f, const bq_key *k, void *base) {
    double x = k->at == BQ_NOWHERE ? default_of(k) : get(k, base);
    const char *text = k->value;
    bool yes = x != 0;
    int64_t whole = (int64_t)x;
    if (!k->value) bq_json_need(j, k->name);
    if (k->type == BQ_KEY_NAME) {
        bq_json_text(j, k->name, &text);
        x = strcmp(text, k->value) ? 1 : x;
    } else if (k->type == BQ_KEY_REAL) {
        bq_json_real(j, k->name, k->min, k->max, &x);
    } else if (k->type == BQ_KEY_BOOL) {
        bq_json_bool(j, k->name, &yes);
        x = yes;
    } else {
        bq_json_int(j, k->name, (int64_t)k->min, (int64_t)k->max, &whole);
        x = (double)whole;
    }
    if (k->at != BQ_NOWHERE)
        put(k, base, x);
    else if (x != default_of(k))
        bq_json_refuse(j, k->name, "only %s is supported for %s", k->value, f->type);
}

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
int bq_config_family(const json_t *config) {
    const json_t *list = json_object_get(config, "architectures");
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const bq_family *f;
    for (int i = 0; (f = bq_family_at(i)); i++) {
        bool named = has_architecture(list, f->architecture);
        if (type ? strcmp(type, f->type) == 0 && (named || json_array_size(list) == 0) : named) return i;
    }
    return -1;
}

static int find_family(bq_json *j) {
    const json_t *list = json_object_get(j->object, "architectures");
    const char *type = NULL;
    char known[900];
    bq_json_text(j, "model_type", &type);
    int found = j->status ? -1 : bq_config_family(j->object);
    if (found >= 0) return found;
    const char *first = json_string_value(json_array_get(list, 0));
    list_families(known, sizeof known);
    bq_json_refuse(j, "model_type", "'%.60s' (%.60s) is not known; known are %s", type ? type : "",
                   first ? first : "no architecture", known);
    return -1;
}

/* ---- sizes ---- */

static void check_sizes(bq_json *j, bq_model *m) {
    if (j->status) return;
    if (!m->kv_heads) m->kv_heads = m->heads;
    if (m->heads % m->kv_heads) {
        bq_json_refuse(j, "num_key_value_heads", "%lld does not divide num_attention_heads %lld",
                       (long long)m->kv_heads, (long long)m->heads);
    }
    if (!m->head_dim && m->hidden % m->heads) {
        bq_json_refuse(j, "hidden_size",
                       "%lld is not a multiple of num_attention_heads %lld, and head_dim is not given",
                       (long long)m->hidden, (long long)m->heads);
    }
    if (!m->head_dim) m->head_dim = m->hidden / m->heads;
    if (m->head_dim < 2 || m->head_dim % 2 || m->head_dim * m->heads > BQ_SIZE_MAX) {
        bq_json_refuse(j, "head_dim", "%lld is odd or out of range", (long long)m->head_dim);
    }
}

/* ---- rope ---- */

static void read_kind(bq_json *d, const bq_family *f, bq_rope *rope) {
    const char *name = NULL;
    bq_json_text(d, "type", &name);
    bq_json_text(d, "rope_type", &name);
    if (!name && bq_json_has(d, "factor")) bq_json_refuse(d, "rope_type", "is missing beside a factor");
    if (!name && !(f->ropes & 1u << BQ_ROPE_DEFAULT)) bq_json_refuse(d, "rope_type", "is missing");
    if (!name || d->status) return; /* the default */
    for (int i = 0; i < (int)(sizeof ropes / sizeof *ropes); i++) {
        if (strcmp(ropes[i].name, name) != 0 || !(f->ropes & 1u << ropes[i].kind)) continue;
        rope->kind = ropes[i].kind;
        return;
    }
    bq_json_refuse(d, "rope_type", "'%.60s' is not known for %s", name, f->type);
}

/* As transformers' Phi3 does: the original length is the one at top level, whatever the rope's own object
 * says. */
static void read_long(bq_json *d, const bq_model *m, bq_rope *rope) {
    if (d->status) return;
    bq_json_reals(d, "short_factor", 1e-6, 1e9, rope->dim / 2, rope->short_factor);
    bq_json_reals(d, "long_factor", 1e-6, 1e9, rope->dim / 2, rope->long_factor);
    if (!rope->factor) rope->factor = (double)m->max_position / rope->original;
    if (rope->attention) return;
    rope->attention = rope->factor > 1 ? sqrt(1 + log(rope->factor) / log(rope->original)) : 1;
}

/* An original length at top level goes first. */
static void read_yarn(bq_json *j, bq_json *d, const bq_model *m, bq_rope *rope) {
    bq_json_real(j, "original_max_position_embeddings", 1, 1e12, &rope->original);
    if (!rope->original) rope->original = (double)m->max_position;
    if (!rope->factor) rope->factor = (double)m->max_position / rope->original;
    if (!rope->attention)
        rope->attention = rope->mscale && rope->mscale_all
                              ? bq_config_yarn_scale(rope->factor, rope->mscale) /
                                    bq_config_yarn_scale(rope->factor, rope->mscale_all)
                              : bq_config_yarn_scale(rope->factor, 1);
    if (rope->low >= rope->high)
        bq_json_refuse(d, "beta_fast", "%g is not above beta_slow %g", rope->high, rope->low);
    if (rope->theta <= 1) bq_json_refuse(d, "rope_theta", "%g is not above 1, as yarn needs", rope->theta);
}

/* A rope from its object.  Theta and the share of rotary channels may stand at top level, too. */
static void read_rope(bq_json *j, bq_json *d, const bq_family *f, bq_model *m) {
    bq_rope *rope = &m->rope;
    const bq_key *k;
    for (int i = 0; (k = key_at(f, i)); i++)
        if (!strcmp(k->name, "rope_theta") || !strcmp(k->name, "partial_rotary_factor")) take(d, f, k, m);
    read_kind(d, f, rope);
    rope->dim = m->rope_dim ? m->rope_dim : (int64_t)((double)m->head_dim * rope->partial);
    if (rope->dim < 2 || rope->dim % 2 || rope->dim / 2 > BQ_ROPE_MAX) {
        bq_json_refuse(d, "partial_rotary_factor", "%lld rotary channels: they must be even, 2 .. %d",
                       (long long)rope->dim, 2 * BQ_ROPE_MAX);
    }
    for (k = rope_keys[rope->kind]; k->name; k++) {
        set_default(k, rope);
        take(d, f, k, rope);
    }
    if (rope->kind == BQ_ROPE_LONG) read_long(d, m, rope);
    if (rope->kind == BQ_ROPE_YARN) read_yarn(j, d, m, rope);
    if (rope->kind == BQ_ROPE_LLAMA3 && rope->low >= rope->high) {
        bq_json_refuse(d, "high_freq_factor", "%g is not above low_freq_factor %g", rope->high, rope->low);
    }
}

/* If both schemas are there, rope_scaling wins, as in transformers.  With two ropes, rope_scaling is that of
 * blocks without a window. */
static void read_ropes(bq_json *j, const bq_family *f, bq_model *m) {
    char prefix[64], inner[64];
    bq_rope plain = m->rope;
    const char *key = bq_json_has(j, "rope_scaling") ? "rope_scaling" : "rope_parameters";
    bq_json d = bq_json_object(j, key, prefix);
    bool each = f->traits & BQ_FAMILY_TWO_ROPES && bq_json_has(&d, "full_attention");
    bq_json full = each ? bq_json_object(&d, "full_attention", inner) : d;
    read_rope(j, &full, f, m);
    bq_json_join(j, &full);
    if (!(f->traits & BQ_FAMILY_TWO_ROPES) || j->status) return;
    plain.theta = m->full_rope.theta;
    m->full_rope = m->rope;
    m->rope = plain;
    m->rope.dim = (int64_t)((double)m->head_dim * plain.partial);
    if (!each) return;
    bq_json local = bq_json_object(&d, "sliding_attention", inner);
    read_rope(j, &local, f, m);
    bq_json_join(j, &local);
}

/* ---- */

static int read_object(const json_t *object, const char *path, bq_model *m) {
    bq_json j = bq_json_of(object, path);
    const bq_key *k;
    bool tied = false;
    *m = (bq_model){.route_factor = 1,
                    .rope = {.partial = 1, .factor = 1, .low = 1, .high = 1, .attention = 1}};
    m->family = find_family(&j);
    if (m->family < 0) return j.status;
    const bq_family *f = bq_family_at(m->family);
    bool quantized = bq_json_has(&j, "quantization_config");
    if (quantized && f->traits & BQ_FAMILY_FP8) {
        bq_fp8_config(&j);
    } else if (quantized || bq_json_has(&j, "compression_config")) {
        bq_json_refuse(&j, "quantization_config",
                       "this checkpoint is quantized already; start from the unquantized model");
    }
    char prefix[64];
    bool nested = f->nested && bq_json_has(&j, f->nested);
    bq_json own = nested ? bq_json_object(&j, f->nested, prefix) : j;
    if (nested) bq_json_bool(&j, "tie_word_embeddings", &tied);
    for (int i = 0; (k = key_at(f, i)); i++) set_default(k, m);
    for (int i = 0; (k = key_at(f, i)); i++) take(&own, f, k, m);
    bq_config_latent(&own, m);
    check_sizes(&own, m);
    if (!own.status) bq_config_experts(&own, f, m);
    if (!own.status) bq_config_windows(&own, f, m);
    if (!own.status) read_ropes(&own, f, m);
    if (!own.status) bq_config_latent_scores(m);
    if (nested) bq_json_join(&j, &own), m->tied |= tied;
    return nested ? j.status : own.status;
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

/* ---- hash ---- */

/* A default adds nothing, so that a key that is new to blockq leaves the hash of models without it. */
static void add(bq_hash *h, const bq_key *k, const void *base) {
    if (k->unhashed || k->at == BQ_NOWHERE) return;
    double x = get(k, base);
    if (k->value && x == default_of(k)) return;
    bq_hash_add(h, k->name, strlen(k->name) + 1);
    bq_hash_add(h, &x, sizeof x);
}

static void hash_rope(const bq_rope *rope, bq_hash *h) {
    const int64_t kind = rope->kind;
    bq_hash_add(h, &kind, sizeof kind);
    for (const bq_key *k = rope_keys[kind]; k->name; k++) add(h, k, rope);
    if (kind != BQ_ROPE_LONG) return;
    bq_hash_add(h, rope->short_factor, (size_t)rope->dim / 2 * sizeof(double));
    bq_hash_add(h, rope->long_factor, (size_t)rope->dim / 2 * sizeof(double));
}

void bq_config_hash(const bq_model *m, bq_hash *h) {
    const bq_family *f = bq_family_at(m->family);
    const bq_key *k;
    bool some = false;
    bq_hash_add(h, f->type, strlen(f->type) + 1);
    for (int i = 0; (k = key_at(f, i)); i++) add(h, k, m);
    for (int b = 0; b < m->blocks; b++) some |= m->full[b];
    if (some) bq_hash_add(h, m->full, (size_t)m->blocks);
    if (m->experts) bq_hash_add(h, m->dense, (size_t)m->blocks);
    if (m->kv_rank) bq_hash_add(h, &m->query_scalar, sizeof m->query_scalar);
    hash_rope(&m->rope, h);
    if (m->full_rope.dim) hash_rope(&m->full_rope, h);
}
