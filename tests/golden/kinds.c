/* SPDX-License-Identifier: Apache-2.0 */
#include "golden/replay.h"

#include <string.h>

static const struct {
    const char *start; /* of the file's name */
    bool whole;        /* and nothing behind it but another '_' */
    golden_replay *run;
    bool mpi;
} kinds[] = {
    {"aimet_", false, golden_aimet, true},
    {"model_", false, golden_model_run, false},
    {"peer_gptq", true, golden_gptq, false},
    {"peer_gguf", true, golden_gguf, false},
    {"peer_smoothquant", true, golden_smoothquant, false},
    {"peer_autosmooth", true, golden_autosmooth, false},
    {"peer_awq", true, golden_awq, false},
    {"peer_inputs", true, golden_inputs, false},
    {"peer_sparse", true, golden_sparse, false},
    {"peer_pack", true, golden_pack, false},
    {"peer_rounding", true, golden_rounding, false},
    {"peer_ct_float", true, golden_ct, false},
    {"peer_torchao", true, golden_torchao, false},
    {"peer_train", true, golden_train, false},
};

golden_kind golden_kind_of(const char *path) {
    golden_kind k = {.run = NULL};
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path, *low = strchr(file, '_');
    size_t kind = low ? (size_t)(low - file) : 0;
    snprintf(k.kind, sizeof k.kind, "%.*s", (int)kind, file);
    snprintf(k.name, sizeof k.name, "%s", low ? low + 1 : file);
    char *end = strstr(k.name, ".safetensors");
    if (end) *end = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i].start);
        if (strncmp(file, kinds[i].start, n) == 0 && (!kinds[i].whole || file[n] == '_' || file[n] == '.'))
            k.run = kinds[i].run, k.mpi = kinds[i].mpi;
    }
    return k;
}
