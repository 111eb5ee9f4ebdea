/* SPDX-License-Identifier: Apache-2.0 */
/* AWQ as AutoAWQ's "gemm" has it.  A quantized linear (rows, cols) with G groups becomes
 *
 *   qweight  I32 (cols, rows / 8)  codes
 *   qzeros   I32 (G, rows / 8)     zero points
 *   scales   F16 (G, rows)
 *
 * with 4 bits, one scheme for all linears, and one scale a row or a group.  Codes and zero points are stored
 * without sign, as code + 8; a word holds those of 8 rows, in the order of `rows_of_word`.  Symmetric codes
 * have the zero point 8: readers want zero points in every file, so config.json says zero_point true.
 * Scales must be F16 values already: to round them here would change the weights. */
#include "base/die.h"
#include "io/out/format.h"

#include <math.h>
#include <string.h>

#define WEIGHT  ".weight"
#define AT_ONCE 64 /* columns that are packed at a time: the codes of a cache line */

enum { FILL = 8 }; /* codes of a word */
enum { SAME_ZEROS = BQ_EXPORT_BARE, AS_IS, CODES, ZEROS, SCALES };

/* Which of a word's 8 rows are in its fields, from the lowest bits on. */
static const int rows_of_word[FILL] = {0, 2, 4, 6, 1, 3, 5, 7};

/* BQ_OK, or BQ_DATA after one message if another scheme came before. */
static int check_same(const bq_export_job *job, int item) {
    int i = 0;
    while (i < item && !job->item[i].quantized) i++;
    if (bq_export_same(&job->item[i].q, &job->item[item].q)) return BQ_OK;
    return bq_export_refuse(&job->item[item],
                            " has another scheme than '%s', and awq has one for all: give all linears "
                            "the same bits and group, or write compressed-tensors",
                            job->item[i].name);
}

static int check(const bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    const bq_scheme s = it->q.scheme;
    int64_t rows = it->q.code.rows, cols = it->q.code.cols;
    int rc = bq_export_weights_only(it, "awq");
    if (!rc && strcmp(it->name, "lm_head.weight") == 0)
        rc = bq_export_refuse(it, " is the head, which awq's readers do not take quantized: write "
                                  "compressed-tensors, or set bits.lm_head.bits=16");
    if (!rc && s.element != BQ_INT4)
        rc = bq_export_refuse(it, " is of %s, awq has int4: write compressed-tensors",
                              bq_element_name(s.element));
    if (!rc) rc = bq_export_f16_scales(it, "awq");
    if (!rc && rows % FILL)
        rc = bq_export_refuse(it,
                              " is (%ld, %ld): awq packs rows in multiples of %d, write safetensors or "
                              "compressed-tensors",
                              (long)rows, (long)cols, FILL);
    if (!rc && s.group > 0 && cols % s.group)
        rc = bq_export_refuse(it, ": groups of %ld do not divide its %ld columns: write safetensors",
                              (long)s.group, (long)cols);
    return rc ? rc : check_same(job, item);
}

static int plan(bq_export_job *job, int item) {
    const bq_export_item *it = &job->item[item];
    if (!it->quantized) {
        bq_export_add(job, item, AS_IS, 0, "", it->t->dtype, it->t->dims, it->t->shape);
        return BQ_OK;
    }
    const bq_qtensor *q = &it->q;
    int64_t rows = q->code.rows, groups = q->scale.cols;
    size_t cut = strlen(WEIGHT);
    int rc = check(job, item);
    if (rc) return rc;
    bq_export_add(job, item, CODES, cut, ".qweight", "I32", 2, (int64_t[]){q->code.cols, rows / FILL});
    bq_export_add(job, item, q->zero.rows ? ZEROS : SAME_ZEROS, cut, ".qzeros", "I32", 2,
                  (int64_t[]){groups, rows / FILL});
    bq_export_add(job, item, SCALES, cut, ".scales", "F16", 2, (int64_t[]){groups, rows});
    return BQ_OK;
}

/* Column c of eight rows, as a word. */
static uint32_t word_of(bq_mat code, int64_t row, int64_t c) {
    uint32_t word = 0;
    for (int i = 0; i < FILL; i++) {
        int field = *(const int8_t *)bq_mat_at(code, row + rows_of_word[i], c) + 8;
        BQ_CHECK(field >= 0 && field < 16, "code %d does not fit 4 bits", field - 8);
        word |= (uint32_t)field << 4 * i;
    }
    return word;
}

static void put_codes(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int64_t cols = q->code.cols, words = q->code.rows / FILL, room = (int64_t)(BQ_EXPORT_BUFFER / 4) / words;
    int64_t at_once = room < AT_ONCE ? room : AT_ONCE;
    uint32_t *word = bq_export_room(job, words, 4);
    BQ_CHECK(q->code.data && q->scale.data, "export: a result without data");
    for (int64_t first = 0, n; first < cols; first += n) {
        n = cols - first < at_once ? cols - first : at_once;
        for (int64_t r = 0; r < words; r++)
            for (int64_t c = 0; c < n; c++) word[c * words + r] = word_of(q->code, r * FILL, first + c);
        bq_writer_put(w, word, (size_t)(n * words) * 4);
    }
}

/* Zero point of row n in group g, without sign. */
static uint32_t zero_of(const bq_qtensor *q, int64_t n, int64_t g) {
    if (!q->zero.rows) return 8;
    float z = *(const float *)bq_mat_at(q->zero, n, g);
    BQ_CHECK(z >= -8 && z < 8 && z == rintf(z), "zero point %g is not a code of 4 bits", (double)z);
    return (uint32_t)((int)z + 8);
}

static void put_zeros(bq_export_job *job, const bq_qtensor *q, bq_writer *w) {
    int64_t words = q->code.rows / FILL;
    uint32_t *row = bq_export_room(job, words, 4);
    for (int64_t g = 0; g < q->scale.cols; g++) {
        for (int64_t r = 0; r < words; r++) {
            row[r] = 0;
            for (int i = 0; i < FILL; i++) row[r] |= zero_of(q, r * FILL + rows_of_word[i], g) << 4 * i;
        }
        bq_writer_put(w, row, (size_t)words * 4);
    }
}

static void write_out(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w) {
    switch (out->part) {
    case AS_IS: bq_export_put_raw(job, job->item[out->item].t, w); break;
    case CODES: put_codes(job, q, w); break;
    case ZEROS:
    case SAME_ZEROS: put_zeros(job, q, w); break;
    case SCALES: bq_export_put_f16(job, q->scale, w); break;
    }
}

/* Linears that stay floats are named; readers leave the head as it is by themselves. */
static json_t *kept(const bq_export_job *job) {
    json_t *list = json_array();
    for (int i = 0; i < job->items; i++) {
        const bq_export_item *item = &job->item[i];
        if (item->quantized || !bq_export_is_linear(item) || strcmp(item->name, "lm_head.weight") == 0)
            continue;
        json_array_append_new(list, bq_export_module(item));
    }
    if (json_array_size(list)) return list;
    json_decref(list);
    return json_null();
}

static void edit(const bq_export_job *job, json_t *config) {
    int i = 0;
    while (!job->item[i].quantized) i++;
    json_t *q = json_pack("{s:s, s:b, s:I, s:i, s:s, s:o}", "quant_method", "awq", "zero_point", true,
                          "group_size", (json_int_t)job->item[i].q.scheme.group, "bits", 4, "version", "gemm",
                          "modules_to_not_convert", kept(job));
    BQ_CHECK(q && json_object_set_new(config, "quantization_config", q) == 0,
             "no memory for a configuration");
}

const bq_format bq_format_awq = {
    .name = "awq",
    .help = "AutoAWQ's gemm, 4 bits in one scheme with F16 scales, as vLLM, SGLang and transformers read it.",
    .loads = BQ_LOADS_VLLM BQ_LOADS_TRANSFORMERS(" with GPTQModel or AutoAWQ"),
    .plan = plan,
    .write = write_out,
    .edit = edit,
    .quantized = true,
};
