/* SPDX-License-Identifier: Apache-2.0 */
/* nvToolsExt.h - shadow of NVIDIA's header: ranges on the host, printed where SIMT_MARKS is set. */
#ifndef BQ_SIMT_NVTX_H
#define BQ_SIMT_NVTX_H

#include <cstdio>
#include <cstdlib>

static int simt_marks; /* open */

static inline int nvtxRangePushA(const char *name) {
    if (getenv("SIMT_MARKS")) fprintf(stderr, "simt: mark %d %s\n", simt_marks, name);
    return simt_marks++;
}
static inline int nvtxRangePop() {
    if (simt_marks == 0) {
        fprintf(stderr, "simt: a mark closed that was not open\n");
        abort();
    }
    return --simt_marks;
}

#endif
