/* restart.h - settings that libraries read from the environment before main, made good by starting over.
 *
 * Local.  To be called first in main, before MPI is up: the program is then executed anew with the settings,
 * or goes on without them where that cannot be.  What the user has set stays. */
#ifndef BQ_RESTART_H
#define BQ_RESTART_H

/* GOMP_SPINCOUNT: libgomp's threads spin at barriers for a long time, which is ruinous where cores are
 * shared. OPENBLAS_CORETYPE: an OpenBLAS that is older than the processor takes kernels for its oldest ones,
 * at a fifth of the speed; what the processor can do is asked instead. */
void bq_restart(char **argv);

/* The kernels that OpenBLAS should use on a processor with vectors of class `cpu` (0: SSE, 1: AVX2 and FMA,
 * 2: AVX-512) instead of `core`, those it has picked; NULL where its choice is as wide, and wider than the
 * processor is nothing to ask for. */
const char *bq_restart_core(const char *core, int cpu);

#endif
