/* Codes and zero points in words, as compressed-tensors packs them: every word. */
#include "golden/replay.h"

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

/* ct<bits>_<N>x<K>: codes and zero points alone.  ctl_<bits>_<sym|asym>_<type>: a whole layer, of which
 * the words are compared.  The cases of GPTQ are not: test_export_gptq.c has them. */
static void pack_case(golden *g, golden_report *r, const char *at) {
    static const char *const beside[] = {"weight_scale", "weight_shape", "in_weight",
                                         "in_q",         "in_zp",        "decompressed"};
    int bits = 0;
    bool layer = sscanf(at, "ctl_%d_", &bits) == 1;
    if (!layer && sscanf(at, "ct%d_", &bits) != 1) {
        golden_pass_over(g, "%s/", at);
        r->left++;
        return;
    }
    for (size_t i = 0; layer && i < sizeof beside / sizeof *beside; i++)
        golden_pass_over(g, "%s/%s", at, beside[i]);
    pack_codes(g, r, at, bits, layer ? "weight_packed" : "packed1");
    if (!layer) pack_zeros(g, r, at, bits, "zp", "zp_packed0");
    if (golden_has(g, "%s/weight_zero_point", at)) pack_zeros(g, r, at, bits, "in_zp", "weight_zero_point");
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
