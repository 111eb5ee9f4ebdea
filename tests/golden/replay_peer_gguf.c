/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF as the Python package gguf has it: every bit of every decoded value, and a whole file. */
#include "golden/replay.h"

#include "base/die.h"
#include "io/in/gguf_blocks.h"
#include "io/in/gguf_names.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Values as their bits, so that -0 is not 0, and NaN is compared, too. */
static void compare_bits(golden_report *r, bq_mat have, bq_mat want, const char *at) {
    have.type = want.type = BQ_I32;
    golden_compare(golden_codes_of(r, "values that differ", 0, 0), GOLDEN_ABSOLUTE, have, want, at);
}

static void decode(golden *g, golden_report *r, const bq_gguf_type *type, const char *from, const char *to) {
    if (!golden_has(g, "%s/%s", type->name, from)) return;
    bq_mat coded = golden_read(g, BQ_U8, -1, -1, "%s/%s", type->name, from),
           want = golden_read(g, BQ_F32, -1, -1, "%s/%s", type->name, to);
    int64_t blocks = coded.rows * coded.cols / type->bytes;
    if (blocks * type->bytes != coded.rows * coded.cols || blocks * type->elements != want.rows * want.cols)
        bq_refuse_job(BQ_DATA, "%s: %s/%s is not made of blocks of %d bytes", g->path, type->name, from,
                      type->bytes);
    bq_mat have = bq_mat_host(golden_keep(g, bq_mat_bytes(want)), want.rows, want.cols, BQ_F32);
    type->decode(coded.data, blocks, bq_f32(have));
    compare_bits(r, have, want, type->name);
}

/* The first rows and columns of `want` are what the tensor holds. */
static void compare_tensor(golden *g, golden_report *r, const bq_gguf *file, const char *name, bq_mat want) {
    const bq_tensor *t = bq_gguf_find(file, name);
    if (!t) bq_refuse_job(BQ_DATA, "%s: file/toy has no tensor '%s'", g->path, name);
    want.rows = bq_gguf_rows(t), want.cols = bq_gguf_cols(t);
    bq_mat have = bq_mat_host(golden_keep(g, bq_mat_bytes(want)), want.rows, want.cols, BQ_F32);
    bq_gguf_read(file, t, 0, have.rows, have);
    compare_bits(r, have, want, name);
}

/* The metadata list each key with its type, and each tensor: name, sizes (the row's first), type, place. */
static void compare_lists(golden *g, golden_report *r, const bq_gguf *file) {
    golden_row *row = golden_codes_of(r, "keys and tensors that differ", 0, 0);
    bq_gguf_keys k = bq_gguf_keys_of(file);
    json_t *cases = golden_json(g, "cases"), *toy = json_object_get(cases, "file/toy"), *v;
    const json_t *kv = json_object_get(toy, "kv"), *tensors = json_object_get(toy, "tensors");
    size_t i;
    json_array_foreach(kv, i, v) {
        const char *key = json_string_value(json_array_get(v, 0));
        const json_t *types = json_array_get(v, 1);
        const bq_gguf_value *value = bq_gguf_value_of(k.header, key);
        size_t last = json_array_size(types) - 1;
        golden_note(row,
                    !value || value->list != (last > 0) ||
                        value->type != json_integer_value(json_array_get(types, last)),
                    "%s", key);
    }
    json_array_foreach(tensors, i, v) {
        const char *name = json_string_value(json_array_get(v, 0));
        const json_t *sizes = json_array_get(v, 1);
        const bq_tensor *t = bq_gguf_find(file, name);
        bool same = t && (size_t)t->dims == json_array_size(sizes) &&
                    strcmp(t->dtype, json_string_value(json_array_get(v, 2))) == 0 &&
                    (json_int_t)t->offset == json_integer_value(json_array_get(v, 3));
        for (int d = 0; same && d < t->dims; d++)
            same = t->shape[t->dims - 1 - d] == json_integer_value(json_array_get(sizes, (size_t)d));
        golden_note(row, !same, "%s", name);
    }
    golden_note(row,
                (size_t)bq_gguf_count(file) != json_array_size(tensors) ||
                    (size_t)k.header->values != json_array_size(kv),
                "their number");
    json_decref(cases);
}

static void toy(golden *g, golden_report *r) {
    bq_mat bytes = golden_read(g, BQ_U8, -1, -1, "file/toy");
    char path[64];
    bq_gguf *file;
    int fd = memfd_create("toy", 0);
    BQ_CHECK(fd >= 0 && write(fd, bytes.data, (size_t)bytes.cols) == bytes.cols, "no memory for a file");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    golden_require(bq_gguf_open(&file, path));
    compare_lists(g, r, file);
    compare_tensor(g, r, file, "token_embd.weight", golden_read(g, BQ_F32, 8, 96, "Q8_0/to_float"));
    compare_tensor(g, r, file, "output_norm.weight", golden_read(g, BQ_F32, 8, 96, "in/small"));
    compare_tensor(g, r, file, "blk.0.attn_q.weight", golden_read(g, BQ_F32, 8, 96, "F16/to_float"));
    bq_gguf_close(file);
    close(fd);
}

/* Rows of q or k in the file's order, put back into the checkpoint's. */
static void permute(golden *g, golden_report *r, const char *which) {
    bq_mat from = golden_read(g, BQ_F32, -1, -1, "permute/%s/gguf", which),
           want = golden_read(g, BQ_F32, from.rows, from.cols, "permute/%s/hf", which),
           have = bq_mat_host(golden_keep(g, bq_mat_bytes(want)), want.rows, want.cols, BQ_F32);
    for (int64_t i = 0; i < have.rows; i++) {
        int64_t at = bq_gguf_paired(i, 6);
        if (at < from.rows)
            memcpy(bq_mat_at(have, i, 0), bq_mat_at(from, at, 0), (size_t)have.cols * sizeof(float));
    }
    compare_bits(r, have, want, which);
}

void golden_gguf(golden *g, bq_comm *comm, golden_report *r) {
    (void)comm;
    const bq_gguf_type *type;
    for (int i = 0; (type = bq_gguf_type_at(i)); i++) {
        decode(g, r, type, "raw", "raw_float");
        decode(g, r, type, "from_small", "to_float");
        decode(g, r, type, "from_big", "to_float");
    }
    golden_pass_over(g, "in/");
    permute(g, r, "q");
    permute(g, r, "k");
    toy(g, r);
}
