/* SPDX-License-Identifier: Apache-2.0 */
/* Codes and zero points in words, as compressed-tensors and GPTQ pack them: every word that blockq writes,
 * every value that it reads. */
#include "golden/layer.h"
#include "golden/replay.h"

#include "base/die.h"
#include "io/out/pack.h"

#include <string.h>

/* Codes along the rows. */
static void pack_codes(golden *g, golden_report *r, const char *at, int bits, const char *packed) {
    bq_mat q = golden_read(g, BQ_I8, -1, -1, "%s/q", at);
    int64_t words = bq_pack_words(q.cols, bits);
    bq_mat want = golden_read(g, BQ_I32, q.rows, words, "%s/%s", at, packed),
           have = bq_mat_host(golden_keep(g, bq_mat_bytes(want)), q.rows, words, BQ_I32);
    bq_pack_rows(q, bits, have);
    golden_compare(golden_codes_of(r, "words that differ", 0, 0), GOLDEN_ABSOLUTE, have, want, at);
}

/* Zero points along the columns. */
static void pack_zeros(golden *g, golden_report *r, const char *at, int bits, const char *zp,
                       const char *packed) {
    bq_mat z = golden_read(g, BQ_I8, -1, -1, "%s/%s", at, zp);
    int64_t words = bq_pack_words(z.rows, bits), n = z.rows * z.cols;
    bq_mat value = bq_mat_host(golden_keep(g, (size_t)n * sizeof(float)), z.rows, z.cols, BQ_F32);
    for (int64_t i = 0; i < n; i++) bq_f32(value)[i] = ((const int8_t *)z.data)[i];
    bq_mat want = golden_read(g, BQ_I32, words, z.cols, "%s/%s", at, packed),
           have = bq_mat_host(golden_keep(g, bq_mat_bytes(want)), words, z.cols, BQ_I32);
    bq_pack_zeros(value, bits, have);
    golden_compare(golden_codes_of(r, "words of zero points that differ", 0, 0), GOLDEN_ABSOLUTE, have, want,
                   at);
}

/* The values of a layer that the reader decodes, as bits. */
static void read_layer(golden *g, golden_report *r, golden_layer *l, const char *config, bq_mat want,
                       const char *at) {
    bq_mat have = golden_layer_read(l, g, config);
    have.type = want.type = BQ_I32;
    golden_compare(golden_codes_of(r, "values that differ", 0, 0), GOLDEN_ABSOLUTE, have, want, at);
}

/* (q - z) scale. */
static bq_mat values(golden *g, bq_mat q, bq_mat z, bq_mat scale) {
    bq_mat to =
        bq_mat_host(golden_keep(g, (size_t)(q.rows * q.cols) * sizeof(float)), q.rows, q.cols, BQ_F32);
    for (int64_t n = 0; n < q.rows; n++)
        for (int64_t k = 0; k < q.cols; k++) {
            int64_t at = n * z.cols + k / (q.cols / z.cols);
            int code = q.type == BQ_I8 ? *(int8_t *)bq_mat_at(q, n, k) : *(uint8_t *)bq_mat_at(q, n, k);
            int zero = z.type == BQ_I8 ? ((int8_t *)z.data)[at] : ((uint8_t *)z.data)[at];
            *(float *)bq_mat_at(to, n, k) = (float)(code - zero) * bq_f32(scale)[at];
        }
    return to;
}

#define CONFIG(more) "{\"quantization_config\":{\"quant_method\":" more "}}"
#define WIDTHS                                                                                               \
    CONFIG("\"compressed-tensors\",\"version\":\"0.20.0\",\"format\":\"pack-quantized\",\"config_groups\":{" \
           "\"a\":{\"weights\":{\"num_bits\":%d}}}")

/* Codes with their zero points as a layer whose scales are made up. */
static void read_codes(golden *g, golden_report *r, const char *at, int bits) {
    char config[240];
    bq_mat q = golden_read(g, BQ_I8, -1, -1, "%s/q", at), z = golden_read(g, BQ_I8, q.rows, -1, "%s/zp", at),
           code = golden_read(g, BQ_I32, q.rows, -1, "%s/packed1", at),
           zero = golden_read(g, BQ_I32, -1, z.cols, "%s/zp_packed0", at),
           scale =
               bq_mat_host(golden_keep(g, (size_t)(z.rows * z.cols) * sizeof(float)), z.rows, z.cols, BQ_F32);
    for (int64_t i = 0; i < z.rows * z.cols; i++) bq_f32(scale)[i] = 0.25f + (float)i;
    golden_layer l;
    golden_layer_open(&l);
    golden_layer_add(&l, "weight_packed", "I32", 2, &code.rows, code.data, bq_mat_bytes(code));
    golden_layer_add(&l, "weight_zero_point", "I32", 2, &zero.rows, zero.data, bq_mat_bytes(zero));
    golden_layer_add(&l, "weight_scale", "F32", 2, &z.rows, scale.data, bq_mat_bytes(scale));
    golden_layer_add(&l, "weight_shape", "I64", 1, (int64_t[]){2}, &q.rows, 2 * sizeof q.rows);
    snprintf(config, sizeof config, WIDTHS, bits);
    read_layer(g, r, &l, config, values(g, q, z, scale), at);
}

/* gptq<bits>_<sym|asym>_<N>x<K>_g<group>: GPTQ, version 1, by auto-round. */
static void gptq_case(golden *g, golden_report *r, const char *at, int bits) {
    char config[100], prefix[100];
    bq_mat q = golden_read(g, BQ_U8, -1, -1, "%s/q", at), z = golden_read(g, BQ_U8, q.rows, -1, "%s/z", at),
           scale =
               bq_mat_host(golden_keep(g, (size_t)(z.rows * z.cols) * sizeof(float)), z.rows, z.cols, BQ_F32),
           stored = bq_mat_host(golden_keep(g, bq_mat_bytes(scale)), z.cols, z.rows, BQ_F32);
    snprintf(prefix, sizeof prefix, "%s/scales", at);
    golden_convert(g, prefix, stored);
    for (int64_t i = 0; i < z.rows * z.cols; i++)
        bq_f32(scale)[i] = *(float *)bq_mat_at(stored, i % z.cols, i / z.cols);
    golden_layer l;
    golden_layer_open(&l);
    snprintf(prefix, sizeof prefix, "%s/", at);
    golden_layer_add_all(&l, g, prefix, NULL);
    snprintf(config, sizeof config, CONFIG("\"gptq\",\"bits\":%d"), bits);
    read_layer(g, r, &l, config, values(g, q, z, scale), at);
}

/* ctl_<bits>_<sym|asym>_<type>: a whole layer.  The library's own values are rounded to bf16 where scales
 * are. */
static void layer_case(golden *g, golden_report *r, const char *at, int bits) {
    char prefix[100], config[240];
    pack_codes(g, r, at, bits, "weight_packed");
    if (golden_has(g, "%s/weight_zero_point", at)) pack_zeros(g, r, at, bits, "in_zp", "weight_zero_point");
    snprintf(prefix, sizeof prefix, "%s/", at);
    golden_layer l;
    golden_layer_open(&l);
    golden_layer_add_all(&l, g, prefix, NULL);
    snprintf(prefix, sizeof prefix, "%s/decompressed", at);
    bq_mat q = golden_read(g, BQ_I8, -1, -1, "%s/q", at),
           want =
               bq_mat_host(golden_keep(g, (size_t)(q.rows * q.cols) * sizeof(float)), q.rows, q.cols, BQ_F32);
    golden_convert(g, prefix, want);
    snprintf(config, sizeof config, WIDTHS, bits);
    bool exact = strstr(at, "_f32");
    bq_mat have = golden_layer_read(&l, g, config);
    if (exact) have.type = want.type = BQ_I32;
    golden_compare(exact ? golden_codes_of(r, "values that differ", 0, 0)
                         : golden_row_of(r, "values in bf16", 0x1p-8, 0),
                   exact ? GOLDEN_ABSOLUTE : GOLDEN_LARGEST, have, want, at);
}

/* ct<bits>_<N>x<K>: codes and zero points alone. */
static void pack_case(golden *g, golden_report *r, const char *at) {
    int bits = 0;
    if (sscanf(at, "ctl_%d_", &bits) == 1) return layer_case(g, r, at, bits);
    if (sscanf(at, "gptq%d_", &bits) == 1) return gptq_case(g, r, at, bits);
    if (sscanf(at, "ct%d_", &bits) != 1) bq_refuse_job(BQ_DATA, "%s: case %s is not known", g->path, at);
    read_codes(g, r, at, bits);
    pack_codes(g, r, at, bits, "packed1");
    pack_zeros(g, r, at, bits, "zp", "zp_packed0");
}

void golden_pack(golden *g, bq_comm *comm, golden_report *r) {
    (void)comm;
    for (int i = 0; i < bq_weights_count(g->file); i++) {
        const char *tensor = bq_weights_at(g->file, i)->name, *slash = strchr(tensor, '/');
        if (!slash || strcmp(slash, "/q") != 0) continue;
        char *at = golden_keep(g, strlen(tensor));
        memcpy(at, tensor, (size_t)(slash - tensor));
        pack_case(g, r, at);
    }
}
