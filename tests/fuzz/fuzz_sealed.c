/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed objects of any content, as the files that a run reads back: nothing is said, nothing is believed
 * that is no state, no list of files, no recipe.  Unsealed bytes are none of them. */
#include "driver/recipe/recipe.h"
#include "io/files.h"
#include "io/json.h"
#include "io/manifest.h"
#include "io/state/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char dir[64], path[96];
static bq_recipe recipe;

static void start(void) {
    static const char small[] = "{\"model\": \"m\", \"phases\": [{\"passes\": [{\"pass\": \"rtn\"}]}]}";
    char ckpt[80];
    snprintf(dir, sizeof dir, "%s/fuzz-sealed-%ld", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm",
             (long)getpid());
    snprintf(ckpt, sizeof ckpt, "%s/ckpt", dir);
    snprintf(path, sizeof path, "%s/state.json", ckpt);
    if (bq_dir_make(ckpt) || bq_recipe_parse(small, strlen(small), "small", "/", 0, NULL, &recipe)) abort();
}

static void finish(void) {
    char ckpt[80];
    snprintf(ckpt, sizeof ckpt, "%s/ckpt", dir);
    unlink(path);
    rmdir(ckpt);
    rmdir(dir);
}

static void look(void) {
    static const char *const names[] = {"model", "seed"};
    static const uint64_t hashes[] = {1, 2};
    char text[100];
    bq_state_summary made;
    bq_manifest m;
    bq_state *state = bq_state_load(dir, 1, 2, 2, 3);
    if (bq_state_read(dir, &made) && (made.blocks <= 0 || made.stages <= 0)) abort();
    bq_state_compare(dir, names, hashes, 2, text, sizeof text);
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at < 32) abort();
    bq_state_listed(dir, 0, 1);
    bq_state_differs(dir, "model", 1);
    bq_state_close(state);
    if (bq_manifest_read(&m, path))
        for (int i = 0; i < m.count; i++)
            if (strchr(m.file[i].name, '/') || bq_manifest_look(&m, i, dir) != BQ_MANIFEST_OTHER) abort();
    bq_manifest_close(&m);
    bq_recipe_differences(path, &recipe, text, sizeof text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (!dir[0]) start(), atexit(finish);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) abort();
    look();
    json_t *root = json_loadb((const char *)data, bytes, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(root)) {
        if (bq_json_write_sealed(path, root)) abort();
        json_t *back = bq_json_read_sealed(path, bytes * 8 + 1000);
        json_object_del(root, "check");
        if (!back || !json_equal(back, root)) abort();
        json_decref(back);
        look();
    }
    json_decref(root);
    return 0;
}
