/* SPDX-License-Identifier: Apache-2.0 */
/* commands.h - the commands by name, and the options that each of them takes. */
#ifndef TEST_COMMANDS_H
#define TEST_COMMANDS_H

#include "driver/recipe/args.h"

static const char *const options[BQ_COMMANDS] = {
    [BQ_COMMAND_SWEEP] = "--set --vary --groups --out --threads --device --memory --scratch --model-copy "
                         "--acts --split-reference --stages --micro --timeout --no-eval --result-only "
                         "--save-every --stop-after-blocks --verbose",
    [BQ_COMMAND_RUN] =
        "--set --preset --reference --out --threads --device --memory --scratch --model-copy --acts "
        "--split-reference --stages --micro "
        "--timeout --no-eval --result-only "
        "--save-every --stop-after-blocks "
        "--verbose",
    [BQ_COMMAND_PLAN] =
        "--set --preset --threads --device --memory --scratch --model-copy --acts --split-reference "
        "--stages --micro --ranks --gpu --network --node --files --timeout --verbose",
    [BQ_COMMAND_EVAL] = "--model --run --tokens --eval --ctx --windows --offset --rtn --threads --device "
                        "--memory --scratch --timeout --result-only --verbose",
    [BQ_COMMAND_GENERATE] =
        "--tokens --prompt-tokens --count --temperature --top-k --seed --ctx --windows --offset "
        "--threads --device --memory --scratch --timeout --result-only --verbose",
    [BQ_COMMAND_EXPORT] = "--run --format --shard --out --timeout --verbose",
    [BQ_COMMAND_IMPORT] = "--shard --type --no-tokenizer --timeout --verbose",
    [BQ_COMMAND_COMPARE] =
        "--tokens --ctx --windows --offset --threads --device --memory --scratch --timeout "
        "--json --verbose",
    [BQ_COMMAND_INSPECT] = "--verbose",
    [BQ_COMMAND_TOKENS] = "--bytes --tokenizer --out --verbose",
    [BQ_COMMAND_STATUS] = "--watch --json --verbose",
    [BQ_COMMAND_REPORT] = "--out --verbose",
    [BQ_COMMAND_CLEAN] = "--dry-run --verbose"};
static const char *const names[BQ_COMMANDS] = {
    [BQ_COMMAND_RUN] = "run",           [BQ_COMMAND_PLAN] = "plan",       [BQ_COMMAND_EVAL] = "eval",
    [BQ_COMMAND_EXPORT] = "export",     [BQ_COMMAND_INSPECT] = "inspect", [BQ_COMMAND_TOKENS] = "tokens",
    [BQ_COMMAND_STATUS] = "status",     [BQ_COMMAND_IMPORT] = "import",   [BQ_COMMAND_COMPARE] = "compare",
    [BQ_COMMAND_GENERATE] = "generate", [BQ_COMMAND_SWEEP] = "sweep",     [BQ_COMMAND_REPORT] = "report",
    [BQ_COMMAND_CLEAN] = "clean"};

#endif
