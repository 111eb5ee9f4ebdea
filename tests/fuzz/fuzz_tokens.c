/* SPDX-License-Identifier: Apache-2.0 */
/* Token files of any bytes, and a good one with bytes changed.  Run with -max_len=512 -close_fd_mask=2: every
 * refusal is a line.  The HDF5 library makes the good one and reads none. */
#include "base/die.h"
#include "io/state/h5.h"
#include "io/state/raw.h"
#include "io/tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char good[16384];
static size_t good_size;

static void make_good(void) {
    int32_t ids[40];
    char path[] = "/tmp/fuzz-tokens-XXXXXX";
    for (int i = 0; i < 40; i++) ids[i] = i;
    bq_tokens t = {
        .count = 40, .vocab = 40, .bos = -1, .tokenizer = "bytes", .text = "t", .joiner = "raw", .ids = ids};
    int fd = mkstemp(path);
    if (fd < 0 || bq_tokens_write(path, &t)) abort();
    FILE *f = fopen(path, "rb");
    if (!f) abort();
    good_size = fread(good, 1, sizeof good, f);
    fclose(f);
    close(fd);
    unlink(path);
}

/* First byte even: the rest is the file.  Odd: the rest are edits of the good file, (place, place, value). */
static size_t compose(const uint8_t *data, size_t bytes, char *file) {
    if (bytes == 0 || data[0] % 2 == 0) {
        memcpy(file, data, bytes);
        return bytes;
    }
    memcpy(file, good, good_size);
    for (size_t i = 1; i + 3 <= bytes; i += 3)
        file[(data[i] << 8 | data[i + 1]) % (int)good_size] = (char)data[i + 2];
    return data[0] < 128 ? good_size : good_size * (data[0] - 128u) / 128;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static char file[1 << 20];
    char path[64];
    bq_tokens t;
    if (!good_size) make_good();
    if (bytes > sizeof file) return 0;
    size_t n = compose(data, bytes, file);
    int fd = memfd_create("tokens", 0);
    if (fd < 0 || !bq_raw_write(fd, file, n, 0)) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (bq_tokens_read(path, &t) == BQ_OK) {
        for (int64_t i = 0; i < t.count; i++)
            if (t.ids[i] < 0 || t.ids[i] >= t.vocab) abort();
        if (t.bos < -1 || t.bos >= t.vocab || t.hash != bq_tokens_hash(&t)) abort();
        bq_tokens_close(&t);
    }
    close(fd);
    return 0;
}
