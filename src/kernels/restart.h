/* SPDX-License-Identifier: Apache-2.0 */
/* restart.h - set environment variables that libraries read before main, by starting the program again.
 *
 * Call it first in main, before MPI.  The program is executed anew with the variables set; where that fails
 * it goes on without them.  Variables that the user has set are not changed.  Local. */
#ifndef BQ_RESTART_H
#define BQ_RESTART_H

/* Two variables:
 *   GOMP_SPINCOUNT      libgomp's threads spin at barriers for long: very slow where cores are shared
 *   OPENBLAS_CORETYPE   an OpenBLAS older than the processor uses its oldest kernels, at a fifth of the
 *                       speed; this names kernels by what the processor can do */
void bq_restart(char **argv);

/* The kernels that OpenBLAS should use instead of `core`, those it has chosen.  cpu: what the processor has
 * (0: SSE, 1: AVX2 and FMA, 2: AVX-512).  NULL where its choice is at least as wide. */
const char *bq_restart_core(const char *core, int cpu);

#endif
