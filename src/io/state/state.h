/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - which (sweep, phase, block) triples of a run are done, and what the run was made from.
 *
 * The checkpoint files decide.  ckpt/state.json (docs/files.md) repeats what they say, for people, and
 * has the parts of the fingerprint, so that a refused resume can name what changed.  If it is absent or
 * damaged, it is made again.  One process of a run writes it; any may read it.  All calls are local. */
#ifndef BQ_STATE_H
#define BQ_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bq_state bq_state;

/* The state of a run of sweeps x phases x blocks in <run_dir>, with the seconds that state.json has for
 * this fingerprint.  Looks at no checkpoint yet.  A missing folder is an empty state.  The caller closes. */
bq_state *bq_state_load(const char *run_dir, uint64_t fingerprint, int sweeps, int phases, int blocks);

/* Blocks have so many experts, but those for which `without` is true: so many more files are to be whole.
 * The array must outlive the state. */
void bq_state_experts(bq_state *state, int experts, const bool *without);

/* Is the triple's checkpoint there and whole?  The first call for a triple reads its whole file, and logs one
 * that is damaged or foreign; later calls answer from memory.  seems_done: judged from the seal alone if not
 * known yet. mark: the caller has written the checkpoint. */
bool bq_state_done(bq_state *state, int sweep, int phase, int block);
bool bq_state_seems_done(const bq_state *state, int sweep, int phase, int block);
void bq_state_mark(bq_state *state, int sweep, int phase, int block);

/* Number of triples that seem done now; whose file, by its seal, has another fingerprint. */
int64_t bq_state_count(bq_state *state);
int64_t bq_state_foreign(const bq_state *state);

/* Write state.json, whole or not at all: n named parts of the fingerprint; the triples that seem done, by
 * whatever rank; the seconds of this run so far, added to those of the runs before; the grid ("2x4").  Ends
 * the job when the disk fails. */
void bq_state_save(bq_state *state, const char *const *names, const uint64_t *hashes, int n, double seconds,
                   const char *grid);

/* The latest sweep for which <run_dir>/ckpt/state.json lists the block as done by the phase; -1: none. */
int bq_state_listed(const char *run_dir, int phase, int block);

/* Does <run_dir>/ckpt/state.json have another hash for that part? False if it has none, or cannot be read. */
bool bq_state_differs(const char *run_dir, const char *name, uint64_t hash);

void bq_state_close(bq_state *state); /* NULL is fine */

/* What <run_dir>/ckpt/state.json says of the run that wrote it: its shape, the seconds used up to its last
 * start or end, the grid of stages x replicas.  False if it cannot be read. */
typedef struct {
    uint64_t fingerprint;
    int sweeps, phases, blocks, stages, replicas;
    double seconds;
} bq_state_summary;
bool bq_state_read(const char *run_dir, bq_state_summary *out);

/* What differs between <run_dir>/ckpt/state.json and these parts: names that are new, gone or have another
 * hash go to `changed`, as "model, recipe.phases".  Returns their number, or -1 if the file cannot be read
 * (a fresh run directory). */
int bq_state_compare(const char *run_dir, const char *const *names, const uint64_t *hashes, int n,
                     char *changed, size_t size);

#endif
