/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - the command line, MPI around the commands that compute, and the exit code. */
#include "base/log.h"
#include "comm/heartbeat.h"
#include "driver/commands/commands.h"
#include "driver/commands/options.h"
#include "kernels/restart.h"

#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

/* Before MPI starts, take the rank from the launcher's environment: only rank 0 prints a usage error. */
static void introduce(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *rank = getenv(names[i]);
        if (rank) return bq_log_identity(atoi(rank), 1);
    }
}

int main(int argc, char **argv) {
    static int (*const commands[BQ_COMMANDS])(const bq_args *, bq_comm *) = {
        [BQ_COMMAND_RUN] = bq_cmd_run,           [BQ_COMMAND_SWEEP] = bq_cmd_sweep,
        [BQ_COMMAND_PLAN] = bq_cmd_plan,         [BQ_COMMAND_EVAL] = bq_cmd_eval,
        [BQ_COMMAND_GENERATE] = bq_cmd_generate, [BQ_COMMAND_EXPORT] = bq_cmd_export,
        [BQ_COMMAND_IMPORT] = bq_cmd_import,     [BQ_COMMAND_COMPARE] = bq_cmd_compare,
        [BQ_COMMAND_INSPECT] = bq_cmd_inspect,   [BQ_COMMAND_TOKENS] = bq_cmd_tokens,
        [BQ_COMMAND_STATUS] = bq_cmd_status,     [BQ_COMMAND_REPORT] = bq_cmd_report,
        [BQ_COMMAND_CLEAN] = bq_cmd_clean};
    static bq_args args; /* large */
    /* Return freed memory to the system: else pieces of up to 32 MB stay resident, which plans do not
     * count. */
    mallopt(M_MMAP_THRESHOLD, 2 << 20);
    mallopt(M_TRIM_THRESHOLD, 4 << 20);
    bq_restart(argv);
    introduce();
    int code = bq_options_parse(argc, argv, &args);
    if (code && bq_log_rank()) sleep(1); /* the first exit ends the job: let rank 0 print */
    if (code || args.command == BQ_COMMAND_NONE) return code;
    if (args.verbose) bq_log_level(BQ_DEBUG);
    bq_comm comm = {.size = 1, .nstage = 1, .nreplica = 1};
    if (args.command >= BQ_COMMAND_INSPECT) {
        bq_log_identity(0, 1);
        return commands[args.command](&args, &comm);
    }
    bq_heartbeat_timeout((double)args.timeout);
    code = bq_comm_open(&comm, &argc, &argv);
    if (!code) code = commands[args.command](&args, &comm);
    bq_comm_close(&comm);
    return code;
}
