/* SPDX-License-Identifier: Apache-2.0 */
#include "golden/layer.h"

#include "base/die.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern const bq_weights_reader bq_weights_packed;

void golden_layer_open(golden_layer *l) {
    *l = (golden_layer){0};
    l->header = open_memstream(&l->text, &l->text_bytes);
    l->tensors = open_memstream(&l->data, &l->data_bytes);
    BQ_CHECK(l->header && l->tensors, "no memory for a layer");
}

void golden_layer_add(golden_layer *l, const char *name, const char *dtype, int dims, const int64_t *shape,
                      const void *data, size_t bytes) {
    long from = ftell(l->tensors);
    fprintf(l->header, "%c\"lin.%s\":{\"dtype\":\"%s\",\"shape\":[", ftell(l->header) ? ',' : '{', name,
            dtype);
    for (int i = 0; i < dims; i++) fprintf(l->header, "%s%lld", i ? "," : "", (long long)shape[i]);
    fprintf(l->header, "],\"data_offsets\":[%ld,%ld]}", from, from + (long)bytes);
    fwrite(data, 1, bytes, l->tensors);
}

void golden_layer_add_all(golden_layer *l, golden *g, const char *prefix, const json_t *types) {
    for (int i = 0; i < bq_weights_count(g->file); i++) {
        const bq_tensor *t = bq_weights_at(g->file, i);
        if (strncmp(t->name, prefix, strlen(prefix)) != 0) continue;
        const char *type = json_string_value(json_object_get(types, t->name));
        void *data = golden_keep(g, t->bytes);
        bq_weights_read_raw(g->file, t, 0, data, t->bytes);
        golden_layer_add(l, t->name + strlen(prefix), type ? type : t->dtype, t->dims, t->shape, data,
                         t->bytes);
    }
    golden_pass_over(g, "%s", prefix);
}

bq_mat golden_layer_read(golden_layer *l, golden *g, const char *config) {
    char path[64];
    int fd = memfd_create("layer", 0);
    fputc('}', l->header);
    fclose(l->header);
    fclose(l->tensors);
    uint64_t n = l->text_bytes;
    BQ_CHECK(fd >= 0 && write(fd, &n, sizeof n) == sizeof n && write(fd, l->text, n) == (ssize_t)n &&
                 write(fd, l->data, l->data_bytes) == (ssize_t)l->data_bytes,
             "no memory for a layer");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    bq_weights *w = calloc(1, sizeof *w);
    BQ_CHECK(w, "no memory for a layer");
    w->reader = &bq_weights_packed, w->dir = strdup("/proc/self/fd"), w->config_path = strdup(g->path);
    w->config = json_loads(config, 0, NULL);
    BQ_CHECK(w->config, "%s: no configuration of a layer", g->path);
    golden_require(w->reader->open(w, path));
    const bq_tensor *t = bq_weights_find(w, "lin.weight");
    if (!t) bq_refuse_job(BQ_DATA, "%s: a layer has no weight", g->path);
    bq_mat m = bq_mat_host(golden_keep(g, t->bytes), t->shape[0], t->shape[1], BQ_F32);
    bq_weights_read(w, t, 0, m.rows, m);
    bq_weights_close(w);
    close(fd);
    free(l->text);
    free(l->data);
    return m;
}
