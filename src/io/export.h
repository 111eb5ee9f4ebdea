/* export.h - a quantized model as a directory that engines load.
 *
 * Both exporters walk the source's tensors, ask for what became of each, and write shards of at most 5e9
 * bytes, one file model.safetensors where that suffices.  Then tokenizer and generation files are copied;
 * config.json and the index come last, and old ones go first, so a directory is loadable only when it is
 * whole.  Equal input gives equal bytes.  Memory: a few MiB besides what the source of results holds.
 *
 * Returned: BQ_OK, or BQ_DATA after one message (out_dir is src_dir, or holds a model that blockq did not
 * write; a tensor of another shape; bits or group the format cannot say).  A failing disk dies. */
#ifndef BQ_EXPORT_H
#define BQ_EXPORT_H

#include "io/weights.h"

/* What became of one stored tensor.  Views are host memory; data may be NULL when only the plan is asked
 * for, rows and cols never lie. */
typedef struct {
    bq_mat code;   /* (rows, cols) i8, signed */
    bq_mat scale;  /* (rows, groups) f32, groups = 1 or ceil(cols / group) */
    bq_mat dense;  /* (rows, cols) f32, code * scale; data NULL: the exporter multiplies */
    bq_mat fold;   /* (rows, cols) f32, the float weight after folding; may be empty */
    int bits;      /* 2..8; 0: not quantized but replaced by fold, a norm after smoothing say (1-D: (1, n)) */
    int64_t group; /* columns a scale; 0: one scale a row */
} bq_qtensor;

/* Where results come from.  get: name is the tensor's name in the source
 * ("model.layers.0.self_attn.q_proj.weight"). False: the tensor is as it was.  True: *q says what it became;
 * the views stay valid until the next call.  Asked twice a tensor, want_data false (plan) and true (write),
 * with the same answer but for data.  "lm_head.weight" is asked for even where the source ties it to the
 * embedding: true unties it. */
typedef struct {
    void *ctx;
    bool (*get)(void *ctx, const char *name, bool want_data, bq_qtensor *q);
} bq_qsource;

/* Plain safetensors: every floating tensor F32, quantized ones code * scale exactly; config.json says
 * float32. */
int bq_export_dense(const bq_weights *src, const char *src_dir, const char *out_dir, bq_qsource q);

/* compressed-tensors, pack-quantized: weight_packed (codes as given, never recomputed), weight_scale F32,
 * weight_shape. Symmetric, 4 or 8 bits, one scale a row or a group; cols % group = 0.  Only Linear weights
 * can be quantized.  Other tensors keep dtype and bytes, replaced ones are F32.  Several schemes become
 * several config_groups. */
int bq_export_ct(const bq_weights *src, const char *src_dir, const char *out_dir, bq_qsource q);

#endif
