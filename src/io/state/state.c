/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/state.h"

#include "base/die.h"
#include "base/log.h"
#include "io/state/checkpoint.h"
#include "io/files.h"
#include "io/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    VERSION = 1,
    UNKNOWN = 0,
    YES,
    NO
}; /* what is known of a triple's checkpoint, all of which was read */
#define MAX_FILE ((size_t)1 << 26)

struct bq_state {
    char run_dir[BQ_PATH];
    uint64_t fingerprint;
    int sweeps, phases, blocks;
    double seconds;
    unsigned char *known; /* (sweeps, phases, blocks) */
    int experts;
    const bool *without; /* (blocks): blocks that have none; NULL: no block has */
};

/* state.json; NULL, silently, if it is absent, damaged or of another version: nothing in it is needed. */
static json_t *read_quietly(const char *run_dir) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, run_dir, "ckpt/state.json");
    json_t *root = bq_json_read_sealed(path, MAX_FILE);
    if (json_integer_value(json_object_get(root, "version")) == VERSION) return root;
    json_decref(root);
    return NULL;
}

static void hex_of(char out[17], uint64_t value) { snprintf(out, 17, "%016" PRIx64, value); }

static bool is_hex(const json_t *value, uint64_t expected) {
    char hex[17];
    hex_of(hex, expected);
    return json_is_string(value) && strcmp(json_string_value(value), hex) == 0;
}

bq_state *bq_state_load(const char *run_dir, uint64_t fingerprint, int sweeps, int phases, int blocks) {
    BQ_CHECK(sweeps > 0 && phases > 0 && blocks > 0, "a run of %d sweeps, %d phases, %d blocks", sweeps,
             phases, blocks);
    bq_state *s = calloc(1, sizeof *s);
    BQ_CHECK(s, "no memory for the state of a run");
    s->fingerprint = fingerprint;
    s->sweeps = sweeps, s->phases = phases, s->blocks = blocks;
    bq_path_join(s->run_dir, sizeof s->run_dir, "", run_dir);
    s->known = calloc((size_t)sweeps * (size_t)phases * (size_t)blocks, 1);
    BQ_CHECK(s->known, "no memory for the state of %d blocks", blocks);
    json_t *root = read_quietly(run_dir);
    const json_t *seconds = json_object_get(root, "seconds");
    if (is_hex(json_object_get(root, "fingerprint"), fingerprint) && json_is_number(seconds) &&
        json_number_value(seconds) > 0)
        s->seconds = json_number_value(seconds);
    json_decref(root);
    return s;
}

static unsigned char *entry(const bq_state *s, int sweep, int phase, int block) {
    BQ_CHECK(sweep >= 0 && sweep < s->sweeps && phase >= 0 && phase < s->phases && block >= 0 &&
                 block < s->blocks,
             "sweep %d, phase %d, block %d of a run of %d, %d, %d", sweep, phase, block, s->sweeps, s->phases,
             s->blocks);
    return &s->known[((size_t)sweep * (size_t)s->phases + (size_t)phase) * (size_t)s->blocks + (size_t)block];
}

/* Read a whole file; one that is there but does not count is logged. */
static bool verify_file(const bq_state *s, const char *path, bq_ckpt_at at) {
    char why[BQ_WHY];
    bq_ckpt_file *f;
    bq_ckpt head;
    int status = bq_ckpt_open_at(&f, path, s->fingerprint, at, &head, why);
    bq_ckpt_close(f);
    if (status == BQ_CKPT_OK || status == BQ_CKPT_ABSENT) return status == BQ_CKPT_OK;
    bq_log_all(BQ_WARN, "block %d will be done again: '%s': %s", at.block, path, why);
    return false;
}

/* All files of the triple. */
static bool verify(const bq_state *s, int sweep, int phase, int block) {
    char path[BQ_PATH];
    int experts = s->without && !s->without[block] ? s->experts : 0;
    bq_ckpt_at at = {sweep, phase, block, 0};
    bq_ckpt_path(path, sizeof path, s->run_dir, sweep, phase, block);
    bool whole = verify_file(s, path, at);
    for (int e = 0; e < experts && whole; e++) {
        at.unit = 1 + e;
        bq_ckpt_expert_path(path, sizeof path, s->run_dir, sweep, phase, block, e);
        whole = verify_file(s, path, at);
    }
    return whole;
}

void bq_state_experts(bq_state *s, int experts, const bool *without) {
    s->experts = experts, s->without = without;
}

bool bq_state_done(bq_state *s, int sweep, int phase, int block) {
    unsigned char *known = entry(s, sweep, phase, block);
    if (*known == UNKNOWN) *known = verify(s, sweep, phase, block) ? YES : NO;
    return *known == YES;
}

void bq_state_mark(bq_state *s, int sweep, int phase, int block) { *entry(s, sweep, phase, block) = YES; }

/* From the seal alone where the triple is unknown: another rank may have written the file. */
bool bq_state_seems_done(const bq_state *s, int sweep, int phase, int block) {
    char path[BQ_PATH];
    unsigned char known = *entry(s, sweep, phase, block);
    if (known != UNKNOWN) return known == YES;
    bq_ckpt_path(path, sizeof path, s->run_dir, sweep, phase, block);
    return bq_ckpt_peek(path, s->fingerprint) == BQ_CKPT_OK;
}

static bool is_foreign(const bq_state *s, int sweep, int phase, int block) {
    char path[BQ_PATH];
    bq_ckpt_path(path, sizeof path, s->run_dir, sweep, phase, block);
    return bq_ckpt_peek(path, s->fingerprint) == BQ_CKPT_FOREIGN;
}

/* Count the triples for which `is` is true, in order; append them to list unless it is NULL. */
static int64_t walk(const bq_state *s, bool (*is)(const bq_state *, int, int, int), json_t *list) {
    int64_t n = 0;
    for (int i = 0; i < s->sweeps * s->phases * s->blocks; i++) {
        int block = i % s->blocks, phase = i / s->blocks % s->phases, sweep = i / s->blocks / s->phases;
        if (!is(s, sweep, phase, block)) continue;
        if (list) json_array_append_new(list, json_pack("[iii]", sweep, phase, block));
        n++;
    }
    return n;
}

int64_t bq_state_count(bq_state *s) { return walk(s, bq_state_seems_done, NULL); }
int64_t bq_state_foreign(const bq_state *s) { return walk(s, is_foreign, NULL); }

void bq_state_save(bq_state *s, const char *const *names, const uint64_t *hashes, int n, double seconds,
                   const char *grid) {
    char path[BQ_PATH], hex[17];
    json_t *parts = json_object(), *done = json_array();
    for (int i = 0; i < n; i++) {
        hex_of(hex, hashes[i]);
        json_object_set_new(parts, names[i], json_string(hex));
    }
    walk(s, bq_state_seems_done, done);
    hex_of(hex, s->fingerprint);
    json_t *root = json_pack("{s:i, s:s, s:[iii], s:o, s:o, s:f, s:s}", "version", VERSION, "fingerprint",
                             hex, "shape", s->sweeps, s->phases, s->blocks, "parts", parts, "done", done,
                             "seconds", s->seconds + seconds, "grid", grid);
    BQ_CHECK(root && json_object_size(parts) == (size_t)n,
             "no memory for the state of a run, or a bad name in it");
    bq_path_join(path, sizeof path, s->run_dir, "ckpt/state.json");
    int error = bq_json_write_sealed(path, root);
    BQ_CHECK(error == 0, "write of '%s' failed: %s", path, strerror(error));
    json_decref(root);
}

void bq_state_close(bq_state *s) {
    if (!s) return;
    free(s->known);
    free(s);
}

bool bq_state_read(const char *run_dir, bq_state_summary *out) {
    enum { MOST = 1 << 16 };
    json_t *root = read_quietly(run_dir);
    const char *hex, *grid;
    char *end = NULL;
    bq_state_summary s = {0};
    bool good = root &&
                json_unpack(root, "{s:s, s:[iii], s:F, s:s}", "fingerprint", &hex, "shape", &s.sweeps,
                            &s.phases, &s.blocks, "seconds", &s.seconds, "grid", &grid) == 0 &&
                s.sweeps > 0 && s.sweeps < MOST && s.phases > 0 && s.phases < MOST && s.blocks > 0 &&
                s.blocks < MOST && s.seconds >= 0 && sscanf(grid, "%dx%d", &s.stages, &s.replicas) == 2 &&
                s.stages > 0 && s.replicas > 0;
    if (good) s.fingerprint = strtoull(hex, &end, 16);
    good = good && end == hex + 16 && *end == 0 && (int64_t)s.sweeps * s.phases * s.blocks < 1 << 24;
    if (good) *out = s;
    json_decref(root);
    return good;
}

int bq_state_listed(const char *run_dir, int phase, int block) {
    json_t *root = read_quietly(run_dir), *one;
    int latest = -1, of[3];
    size_t i;
    json_array_foreach(json_object_get(root, "done"), i, one) {
        if (json_unpack(one, "[iii]", &of[0], &of[1], &of[2]) || of[1] != phase || of[2] != block) continue;
        latest = of[0] > latest ? of[0] : latest;
    }
    json_decref(root);
    return latest;
}

bool bq_state_differs(const char *run_dir, const char *name, uint64_t hash) {
    json_t *root = read_quietly(run_dir);
    const json_t *part = json_object_get(json_object_get(root, "parts"), name);
    bool differs = part && !is_hex(part, hash);
    json_decref(root);
    return differs;
}

/* Append a name to the list, without characters that control a terminal. */
static void append(char *list, size_t size, const char *name) {
    size_t at = strlen(list);
    if (at + 1 >= size) return;
    snprintf(list + at, size - at, "%s%s", at ? ", " : "", name);
    bq_log_clean(list + at, 0);
}

static bool among(const char *name, const char *const *names, int n) {
    for (int i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

int bq_state_compare(const char *run_dir, const char *const *names, const uint64_t *hashes, int n,
                     char *changed, size_t size) {
    const char *name;
    json_t *value, *root = read_quietly(run_dir), *parts = json_object_get(root, "parts");
    int count = json_is_object(parts) ? 0 : -1;
    if (size) changed[0] = 0;
    for (int i = 0; i < n && count >= 0; i++)
        if (!is_hex(json_object_get(parts, names[i]), hashes[i])) append(changed, size, names[i]), count++;
    json_object_foreach(parts, name, value) if (!among(name, names, n)) append(changed, size, name), count++;
    json_decref(root);
    return count;
}
