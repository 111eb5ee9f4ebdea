/* SPDX-License-Identifier: Apache-2.0 */
/* A safetensors file of any bytes, as a model with stacked experts, is refused with one message, or all bytes
 * of every tensor that the model then has can be read, in pieces, too.  Run with -close_fd_mask=2: every
 * refusal is a line. */
#include "base/die.h"
#include "read_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern const bq_weights_reader bq_weights_stacked;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A scale of 255 ends the process: values are read where there is no such byte. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    char path[64];
    bq_weights *w = calloc(1, sizeof *w);
    int fd = memfd_create("model", 0);
    must(w && fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    w->reader = &bq_weights_stacked, w->dir = strdup("/proc/self/fd");
    int rc = w->reader->open(w, path);
    must(rc == BQ_OK || rc == BQ_DATA);
    if (!rc && !memchr(data, 255, bytes)) read_all(w);
    bq_weights_close(w);
    close(fd);
    return 0;
}
