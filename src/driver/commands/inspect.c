/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/commands.h"
#include "driver/load/source.h"

#include "base/die.h"
#include "base/log.h"
#include "io/state/checkpoint.h"
#include "io/files.h"
#include "io/rundir.h"
#include "io/state/raw.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The linears of a unit; of an expert, by the name of the first one. */
static void print_linears(const bq_arch *a) {
    for (int i = 0; i < a->linears; i++)
        printf("    %-36s %6ld x %ld%s\n", a->linear[i].module, (long)a->linear[i].rows,
               (long)a->linear[i].cols, a->linear[i].bias ? " + bias" : "");
}

static void print_experts(const bq_source *src) {
    const bq_model *m = &src->arch.model;
    int dense = 0;
    for (int b = 0; b < m->blocks; b++) dense += m->dense[b];
    printf("  %d experts in %d block%s, of which a token takes %d; the first of them:\n", m->experts,
           m->blocks - dense, m->blocks - dense == 1 ? "" : "s", m->chosen);
    print_linears(&src->expert);
    if (!dense) return;
    printf("  %d block%s without experts:\n", dense, dense == 1 ? "" : "s");
    print_linears(&src->dense);
}

static int inspect_model(const char *dir) {
    static const char *const rope[] = {"default", "linear", "llama3", "longrope", "yarn"};
    bq_source src;
    int code = bq_source_open(&src, dir);
    if (code) return code;
    const bq_arch *a = &src.arch;
    const bq_model *m = &a->model;
    size_t bytes = 0, one;
    for (int i = 0; i < bq_weights_files(src.weights); i++)
        bq_weights_file(src.weights, i, &one), bytes += one;
    printf("model %s\n  family %s, %d blocks, hidden %ld, intermediate %ld, vocabulary %ld%s\n", dir,
           bq_family_at(m->family)->type, m->blocks, (long)m->hidden, (long)m->inter, (long)m->vocab,
           m->tied ? ", tied" : "");
    printf("  heads %ld, kv heads %ld, head size %ld, rope %s (%ld channels, theta %g), eps %g, window %ld\n",
           (long)m->heads, (long)m->kv_heads, (long)m->head_dim, rope[m->rope.kind], (long)m->rope.dim,
           m->rope.theta, m->eps, (long)m->window);
    printf("  %d tensors in %d files, %.1f MB; %.2f M weights in a block's linears:\n",
           bq_weights_count(src.weights), bq_weights_files(src.weights), (double)bytes / 1e6,
           (double)bq_arch_weights(a) / 1e6);
    print_linears(bq_source_first(&src));
    if (m->experts) print_experts(&src);
    bq_source_close(&src);
    return BQ_OK;
}

static int inspect_checkpoint(const char *path, uint64_t fingerprint) {
    static const char *const scale[] = {
        [BQ_F32] = "f32", [BQ_F16] = "f16", [BQ_BF16] = "bf16", [BQ_F8_E8M0] = "e8m0", [BQ_F8_E4M3] = "e4m3"};
    bq_ckpt_file *f;
    bq_ckpt head;
    char why[BQ_WHY];
    if (bq_ckpt_open(&f, path, fingerprint, &head, why) != BQ_CKPT_OK)
        return bq_refuse(BQ_DATA, "%s: %s", path, why);
    printf("checkpoint %s\n  block %d, phase %d, sweep %d, %ld steps, fingerprint %016lx\n", path, head.block,
           head.phase, head.sweep, (long)head.steps, (unsigned long)head.fingerprint);
    for (int i = 0; i < head.linears; i++) {
        const bq_ckpt_linear *l = &head.linear[i];
        const bq_mat shape = bq_ckpt_shape(l);
        char bits[16];
        snprintf(bits, sizeof bits, "%d bits", bq_code_bits(l->scheme));
        printf("    %-20s %6ld x %-6ld %s, %ld groups a row, scale %s%s%s%s\n", l->name, (long)shape.rows,
               (long)shape.cols,
               bq_element_whole(l->scheme.element) ? bits : bq_element_name(l->scheme.element),
               (long)l->scale.cols, scale[l->scheme.scale], l->zero.rows ? ", zero points" : "",
               l->bias.rows ? ", bias" : "", l->pre.rows ? ", factors of its inputs" : "");
    }
    if (head.norm[0].rows) printf("    norms of its own, 2 x %ld\n", (long)head.norm[0].cols);
    bq_ckpt_close(f);
    return BQ_OK;
}

static int inspect_run(const char *dir) {
    char path[BQ_PATH_MAX + 16], *text;
    size_t bytes;
    static const char *const part[] = {"recipe.json", "result.json", "ckpt/state.json"};
    printf("run %s\n", dir);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, part[i]);
        if (bq_file_read(path, (size_t)4 << 20, &text, &bytes)) continue;
        bq_log_clean(text, 1);
        printf("--- %s\n%s", part[i], text);
        free(text);
    }
    return BQ_OK;
}

static int inspect_tokens(const char *path) {
    bq_tokens t;
    int code = bq_tokens_read(path, &t);
    if (code) return code;
    printf("tokens %s\n  %ld tokens, vocabulary %ld, tokenizer %s, text %s, joined %s, bos %d, hash %016lx\n "
           " first:",
           path, (long)t.count, (long)t.vocab, t.tokenizer, t.text, t.joiner, (int)t.bos,
           (unsigned long)t.hash);
    for (int64_t i = 0; i < t.count && i < 12; i++) printf(" %d", (int)t.ids[i]);
    printf("\n");
    bq_tokens_close(&t);
    return BQ_OK;
}

/* Only checkpoints end in a seal; its tag is the run's fingerprint. */
static bool is_sealed(const char *path, uint64_t *fingerprint) {
    int64_t size;
    int fd;
    bool sealed = bq_file_open(path, O_RDONLY, &fd) == 0 && bq_seal_check(fd, false, &size, fingerprint);
    if (fd >= 0) close(fd);
    return sealed;
}

int bq_cmd_inspect(const bq_args *args, bq_comm *comm) {
    (void)comm;
    const char *path = args->file[0];
    struct stat st;
    uint64_t fingerprint;
    if (stat(path, &st)) return bq_refuse(BQ_USAGE, "%s: there is no such file or directory", path);
    if (S_ISDIR(st.st_mode) || bq_weights_known(path))
        return bq_rundir_is(path) ? inspect_run(path) : inspect_model(path);
    if (fnmatch("*.gguf", path, 0) == 0) return inspect_model(path);
    return is_sealed(path, &fingerprint) ? inspect_checkpoint(path, fingerprint) : inspect_tokens(path);
}
