/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/commands.h"

#include "base/die.h"
#include "base/log.h"
#include "io/tokens.h"

#include <sys/stat.h>

/* --out may replace a regular file, but none of the texts. */
static int check_place(const bq_args *a) {
    struct stat out, text;
    if (stat(a->out, &out)) return BQ_OK;
    if (!S_ISREG(out.st_mode))
        return bq_refuse(BQ_USAGE, "'%s' is not a regular file: give another --out", a->out);
    for (int i = 0; i < a->nfile; i++)
        if (stat(a->file[i], &text) == 0 && text.st_dev == out.st_dev && text.st_ino == out.st_ino)
            return bq_refuse(BQ_USAGE, "'%s' is the text '%s': give another --out", a->out, a->file[i]);
    return BQ_OK;
}

int bq_cmd_tokens(const bq_args *args, bq_comm *comm) {
    (void)comm;
    bq_tokens t;
    int code = check_place(args);
    const char *const *text = (const char *const *)args->file;
    if (!code)
        code = args->tokenizer ? bq_tokens_from_tokenizer(args->nfile, text, args->tokenizer, &t)
                               : bq_tokens_from_text(args->nfile, text, &t);
    if (code) return code;
    code = bq_tokens_write(args->out, &t);
    if (code == BQ_OK)
        bq_log(BQ_INFO, "%s: %ld tokens of %ld ids, %s", args->out, (long)t.count, (long)t.vocab,
               t.bos < 0 ? "no BOS" : "a BOS in front");
    bq_tokens_close(&t);
    return code;
}
