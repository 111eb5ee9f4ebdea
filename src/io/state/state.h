/* state.h - which (sweep, phase, block) triples of a run are done, and what the run was made from.
 *
 * The checkpoint files are the truth.  ckpt/state.json repeats what they say, for people, and
 * holds the parts of the fingerprint, so that a refused resume can name what changed; absent or torn, it
 * is made again.  One process of a run saves it; any may load it.  All calls are local. */
#ifndef BQ_STATE_H
#define BQ_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bq_state bq_state;

/* Look at the checkpoints of <run_dir>/ckpt for sweeps x phases x blocks and at the time used so far.  Never
 * fails: a missing folder is an empty state.  The caller closes. */
bq_state *bq_state_load(const char *run_dir, uint64_t fingerprint, int sweeps, int phases, int blocks);

/* Whether the triple's checkpoint is there and whole.  The first question about a triple verifies its file's
 * bytes (a damaged or foreign one is logged once: it will be redone), later ones are answered from memory. */
bool bq_state_done(bq_state *state, int sweep, int phase, int block);

/* The caller has just written the triple's checkpoint. */
void bq_state_mark(bq_state *state, int sweep, int phase, int block);

/* Whether it seems so, by a quick look at the end of the file alone. */
bool bq_state_seems_done(const bq_state *state, int sweep, int phase, int block);

/* How many triples have a checkpoint of the right fingerprint now, by a quick look at the files. */
int64_t bq_state_count(bq_state *state);

/* How many have one of another fingerprint. */
int64_t bq_state_foreign(const bq_state *state);

/* Write state.json: n named parts of the fingerprint, the triples done (also those that other ranks wrote),
 * the seconds of this run so far, to
 * which those of the runs before are added, the grid ("2x4") for information.  Whole or not at all; ends the
 * job when the disk fails. */
void bq_state_save(bq_state *state, const char *const *names, const uint64_t *hashes, int n, double seconds,
                   const char *grid);

/* The latest sweep in which <run_dir>/ckpt/state.json says that the phase has done the block; -1: none. */
int bq_state_listed(const char *run_dir, int phase, int block);

/* Does <run_dir>/ckpt/state.json have another hash of that part?  False where there is none to be read. */
bool bq_state_differs(const char *run_dir, const char *name, uint64_t hash);

void bq_state_close(bq_state *state); /* NULL is fine */

/* What <run_dir>/ckpt/state.json says about the run that wrote it: its shape, the seconds it had used at its
 * last start or end, and its grid, stages x replicas.  False when there is no readable state.json. */
typedef struct {
    uint64_t fingerprint;
    int sweeps, phases, blocks, stages, replicas;
    double seconds;
} bq_state_summary;
bool bq_state_read(const char *run_dir, bq_state_summary *out);

/* What changed between the run that wrote <run_dir>/ckpt/state.json and these parts: the names that are new,
 * gone or of another hash go into changed, "model, recipe.phases".  Returns their number, or -1 when there is
 * no readable state.json (a fresh run folder). */
int bq_state_compare(const char *run_dir, const char *const *names, const uint64_t *hashes, int n,
                     char *changed, size_t size);

#endif
