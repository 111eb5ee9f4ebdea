/* SPDX-License-Identifier: Apache-2.0 */
/* An index of any bytes is refused, or names only files that cannot lie outside the model's directory.
 * Run with -close_fd_mask=2: every refusal is a line. */
#include "base/die.h"
#include "io/in/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    json_t *map, *v;
    const char *key;
    int rc = bq_index_parse("fuzz.json", (const char *)data, bytes, &map);
    if (rc != BQ_OK && (rc != BQ_DATA || map)) abort();
    if (rc == BQ_OK && json_object_size(map) == 0) abort();
    json_object_foreach(map, key, v) {
        const char *file = json_string_value(v);
        if (!file || strchr(file, '/') || file[0] == '.' || !strstr(file, ".safetensors")) abort();
    }
    json_decref(map);
    return 0;
}
