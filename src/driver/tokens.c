#include "driver/commands.h"

#include "base/die.h"
#include "base/log.h"
#include "io/tokens.h"

int bq_cmd_tokens(const bq_args *args, bq_comm *comm) {
    (void)comm;
    bq_tokens t;
    int code = bq_tokens_from_text(args->nfile, (const char *const *)args->file, &t);
    if (code) return code;
    code = bq_tokens_write(args->out, &t);
    if (code == BQ_OK) bq_log(BQ_INFO, "%s: %ld tokens", args->out, (long)t.count);
    bq_tokens_close(&t);
    return code;
}
