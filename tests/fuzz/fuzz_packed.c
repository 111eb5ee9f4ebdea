/* SPDX-License-Identifier: Apache-2.0 */
/* A safetensors file of any bytes, as a model of codes and scales, is refused with one message, or all bytes
 * of every tensor that the model then has can be read, in pieces, too.  The first byte chooses config.json.
 * Run with -close_fd_mask=2: every refusal is a line. */
#include "base/die.h"
#include "read_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern const bq_weights_reader bq_weights_packed;

#define FORMATS(a, a_weights, b, b_weights)                                                                  \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{"                  \
    "\"a\":{\"format\":\"" a "\",\"weights\":{" a_weights "}},\"b\":{\"format\":\"" b                        \
    "\",\"weights\":{" b_weights "}}}}}"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const char *const config[] = {
        "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}",
        "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":8,\"checkpoint_format\":\"gptq_v2\"}}",
        ("{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\","
         "\"config_groups\":{\"a\":{\"weights\":{\"num_bits\":4}},\"b\":{\"weights\":{\"num_bits\":8}}}}}"),
        "{\"quantization_config\":{\"quant_method\":\"awq\",\"version\":\"gemm\",\"bits\":4}}",
        ("{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":3,\"dynamic\":{\"+:a\":{\"bits\":2}}}"
         "}"),
        FORMATS("pack-quantized", "\"num_bits\":3", "mxfp6-pack-quantized", ""),
        FORMATS("int-quantized", "", "float-quantized", "\"block_structure\":[2,3]"),
        FORMATS("nvfp4-pack-quantized", "", "mxfp4-pack-quantized", ""),
        FORMATS("mxfp8-quantized", "", "pack-quantized", "\"num_bits\":7")};
    char path[64];
    if (!bytes) return 0;
    bq_weights *w = calloc(1, sizeof *w);
    int fd = memfd_create("model", 0);
    must(w && fd >= 0 && write(fd, data + 1, bytes - 1) == (ssize_t)bytes - 1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    w->reader = &bq_weights_packed, w->dir = strdup("/proc/self/fd"), w->config_path = strdup("config.json");
    w->config = json_loads(config[data[0] % (sizeof config / sizeof *config)], 0, NULL);
    int rc = w->reader->open(w, path);
    must(rc == BQ_OK || rc == BQ_DATA);
    if (!rc) read_all(w);
    bq_weights_close(w);
    close(fd);
    return 0;
}
