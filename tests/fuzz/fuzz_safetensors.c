/* SPDX-License-Identifier: Apache-2.0 */
/* A safetensors file of any bytes is refused, or every tensor it lists lies inside it, once, without holes.
 * Run with -close_fd_mask=2: every refusal is a line. */
#include "base/die.h"
#include "io/in/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds) {
    if (!holds) abort();
}

static void check(const bq_safetensors *s, size_t bytes) {
    size_t end = s->count ? s->at[0].offset : bytes;
    must(s->bytes == bytes && end >= 8 && end <= bytes);
    for (int i = 0; i < s->count; i++) {
        const bq_tensor *t = &s->at[i];
        must(t->offset == end && t->bytes <= bytes - end && t->dims >= 0 && t->dims <= BQ_TENSOR_DIMS);
        must((size_t)bq_tensor_count(t) * (size_t)bq_dtype_bits(t->dtype) == 8 * t->bytes);
        for (int k = 0; k < i && i < 20; k++) must(strcmp(t->name, s->at[k].name) != 0);
        end += t->bytes;
    }
    must(end == bytes);
}

/* First the bytes as a file; then as a header of the right length, with as much data as its end asks for. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    bq_safetensors s;
    int fd = memfd_create("model", 0);
    must(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    int rc = bq_safetensors_read(&s, fd, "fuzz.safetensors");
    close(fd);
    must(rc == BQ_OK || rc == BQ_DATA);
    if (rc == BQ_OK) check(&s, bytes);
    bq_safetensors_close(&s);
    size_t more = bytes ? data[bytes - 1] : 0, skip = bytes > 8 ? 8 : 0;
    rc = bq_safetensors_parse(&s, "fuzz", (const char *)data + skip, bytes - skip, 8 + bytes - skip + more);
    must(rc == BQ_OK || rc == BQ_DATA);
    if (rc == BQ_OK) check(&s, 8 + bytes - skip + more);
    bq_safetensors_close(&s);
    return 0;
}
