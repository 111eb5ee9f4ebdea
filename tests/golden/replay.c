/* SPDX-License-Identifier: Apache-2.0 */
/* replay FILE: one golden file run again; a line with its kind, name, worst deviations and verdict on
 * standard output.  Exit code 0: all within their limits, 1: not, 77: blockq has no counterpart of this
 * kind; others, with nothing on standard output: the file could not be used, and standard error says why. */
#include "golden/replay.h"

#include "base/die.h"
#include "base/log.h"

enum { NOT_REPLAYED = 77 };

static int replay(golden_kind *k, const char *path, bq_comm *comm) {
    golden g;
    golden_report report = {.rows = 0};
    int code = golden_open(&g, path);
    if (code) return code;
    k->run(&g, comm, &report);
    golden_unread(&report, &g);
    golden_close(&g);
    printf("%-6s %-18s ", k->kind, k->name);
    golden_print(&report, stdout);
    bool fits = golden_fits(&report);
    printf("%s\n", fits ? ", ok" : ", FAIL");
    return fits ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc != 2) return bq_refuse(BQ_USAGE, "replay: one argument is needed: a golden file");
    golden_kind k = golden_kind_of(argv[1]);
    bq_comm comm;
    bq_log_level(BQ_ERROR);
    if (!k.run) {
        printf("%-6s %-18s not replayed: kind %s_%s\n", k.kind, k.name, k.kind, k.name);
        return NOT_REPLAYED;
    }
    int code = k.mpi ? bq_comm_open(&comm, NULL, NULL) : BQ_OK;
    if (code) return code;
    code = replay(&k, argv[1], &comm);
    if (k.mpi) bq_comm_close(&comm);
    return code;
}
