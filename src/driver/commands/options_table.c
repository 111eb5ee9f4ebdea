/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/options.h"

#include "driver/recipe/recipe.h"

#include <limits.h>

enum { RANKS_MAX = 65536 };

#define AT(field) offsetof(bq_args, field)
const bq_option bq_options[BQ_OPTIONS] = {
    {"set", 0, "KEY=VALUE", SET, 0, 0, 0, RUN | SWEEP | PLAN,
     "Override a key of the recipe, as in --set calibration.samples=64; may be given often"},
    {"vary", 0, "KEY=VALUE,...", VARY, 0, 0, 0, SWEEP,
     "Run every recipe once with each of these values of a key, as in seed=0,1,2; of several --vary with "
     "each "
     "combination"},
    {"groups", 0, "N", INT, AT(groups), 1, RANKS_MAX, SWEEP,
     "Cut the ranks into N groups that work on different runs (as many as there are runs, if ranks suffice)"},
    {"preset", 0, "NAME", TEXT, AT(preset), 0, 0, RUN | PLAN,
     "Take one of blockq's own recipes in the place of a file: best (rotation, GPTQ, distillation), parallel "
     "(the same for many ranks) or fast (GPTQ alone); --set gives model and tokens"},
    {"model", 0, "PATH", TEXT, AT(model), 0, 0, EVAL, "Evaluate this model: a directory or a GGUF file"},
    {"run", 0, "DIR", TEXT, AT(run), 0, 0, EVAL | EXPORT, "Use the result in this run directory"},
    {"tokens", 0, "FILE.h5", TEXT, AT(tokens), 0, 0, EVAL, "Perplexity of these tokens"},
    {"tokens", 0, "FILE.h5", TEXT, AT(tokens), 0, 0, COMPARE,
     "Also the perplexity of both sides on these tokens"},
    {"tokens", 0, "FILE.h5", TEXT, AT(tokens), 0, 0, GENERATE,
     "Take prompts from this file: windows of --ctx tokens, one behind the other"},
    {"prompt-tokens", 0, "IDS", PROMPT, 0, 0, 0, GENERATE,
     "A prompt: token ids, as in 1,2,3; may be given 16 times"},
    {"count", 'n', "N", I64, AT(count), 1, 1 << 20, GENERATE, "Tokens to add to each prompt (32)"},
    {"temperature", 0, "X", REAL, AT(temperature), 0, 1e6, GENERATE,
     "Draw tokens, with probabilities of the logits over X; 0: take the most likely token (0)"},
    {"top-k", 0, "N", INT, AT(top_k), 1, INT_MAX, GENERATE, "Draw only from the N most likely tokens (all)"},
    {"seed", 0, "N", I64, AT(seed), 0, 1e18, GENERATE,
     "Of the random numbers; the same seed draws the same tokens on any number of ranks (0)"},
    {"eval", 0, "KIND:FILE", EVALUATION, 0, 0, 0, EVAL,
     "An evaluation as in a recipe's list evals; its keys follow the file, as in KIND:FILE,KEY=VALUE; may be "
     "given 4 times"},
    {"ctx", 0, "N", I64, AT(ctx), 2, 1 << 20, EVAL | COMPARE, "Tokens of a window (2048)"},
    {"ctx", 0, "N", I64, AT(ctx), 2, 1 << 20, GENERATE, "Tokens of a prompt from --tokens (32)"},
    {"windows", 0, "N", I64, AT(windows), 1, 1e6, GENERATE, "How many prompts from --tokens (1)"},
    {"windows", 0, "N", I64, AT(windows), 0, 1e9, EVAL | COMPARE, "How many windows; 0: all (0)"},
    {"offset", 0, "N", I64, AT(offset), 0, 1e15, EVAL | COMPARE | GENERATE, "First token (0)"},
    {"rtn", 0, "BITS", INT, AT(rtn), 2, 8, EVAL, "Also evaluate round to nearest, 2 to 8 bits, per channel"},
    {"format", 0, "FORMAT", FORMAT, AT(format), 0, 0, EXPORT,
     "A format that recipes have for outputs, its keys behind it, as in NAME:KEY=VALUE,...; 'blockq help "
     "recipe' says what each is (compressed-tensors)"},
    {"shard", 0, "BYTES", BYTES, AT(shard), BQ_SHARD_MIN, 0, EXPORT | IMPORT,
     "Tensors in one file, at most, as in 2G; ranks write different files (5000000000)"},
    {"type", 0, "TYPE", TYPE, AT(type), 0, 0, IMPORT,
     "Make all tensors f32, bf16 or f16, with rounding (matrices of F16 and BF16 stay, the others become "
     "f32: "
     "nothing is rounded)"},
    {"no-tokenizer", 0, NULL, FLAG, AT(no_tokenizer), 0, 0, IMPORT,
     "Leave out the tokenizer's files, where blockq does not know the tokenizer"},
    {"bytes", 0, NULL, FLAG, AT(bytes), 0, 0, TOKENS,
     "A token is a byte, for models with a vocabulary of 256"},
    {"tokenizer", 0, "PATH", TEXT, AT(tokenizer), 0, 0, TOKENS,
     "Tokenize with this model's tokenizer: its folder, or tokenizer.json (byte-level BPE, as GPT-2, Llama "
     "3, Qwen "
     "and SmolLM2 have it; others by tools/prepare.py)"},
    {"out", 'o', "DIR", OUT, AT(out), 0, 0, RUN,
     "Run directory: a new or empty one, or a run's, which goes on (the recipe's name with .run)"},
    {"out", 'o', "DIR", OUT, AT(out), 0, 0, EXPORT,
     "Directory of the new model: a new or empty one, or an earlier export's"},
    {"out", 'o', "DIR", OUT, AT(out), 0, 0, SWEEP,
     "Directory of the run directories, of what they share and of sweep.csv: a new one, or a sweep's, which "
     "goes on"},
    {"out", 'o', "FILE.h5", OUT, AT(out), 0, 0, TOKENS, "File to write"},
    {"out", 'o', "FILE.html", OUT, AT(out), 0, 0, REPORT, "File to write; what is there is replaced"},
    {"threads", 0, "N", INT, AT(threads), 1, BQ_THREADS_MAX, COMPUTE,
     "Threads of this rank, up to 4096 (OMP_NUM_THREADS, or all cores)"},
    {"device", 0, "NAME", DEVICE, AT(device), 0, 0, COMPUTE, "cpu, cuda, cuda:N (device N) or auto (auto)"},
    {"memory", 0, "BYTES", BYTES, AT(memory), 0, 0, COMPUTE,
     "What this rank may use, as in 12G (all that the system gives)"},
    {"scratch", 0, "DIR", TEXT, AT(scratch), 0, 0, COMPUTE,
     "Node-local place for streams that memory cannot hold"},
    {"model-copy", 0, "PATH", TEXT, AT(model_copy), 0, 0, RUN | SWEEP | PLAN,
     "Read the recipe's model from this copy of it, on a node's own disk say"},
    {"acts", 0, "HOW", ACTS, AT(acts), 0, 0, RUN | SWEEP | PLAN,
     "How ranks reach the run's activation files: shared: each its samples; root: rank 0 alone, the others "
     "keep copies of theirs in --scratch; parallel: as shared, through MPI-IO (shared)"},
    {"reference", 0, "DIR", TEXT, AT(reference), 0, 0, RUN,
     "Keep the FP stream and the numbers of evaluations here, for other runs with the same model, "
     "calibration and transforms, one after the other (the run directory)"},
    {"split-reference", 0, NULL, FLAG, AT(split_reference), 0, 0, RUN | SWEEP | PLAN,
     "Each rank takes a share of the samples through all blocks, instead of stages passing them on: less "
     "waiting for few stages, more reading of weights"},
    {"stages", 0, "N", INT, AT(stages), 1, 4096, RUN | SWEEP | PLAN,
     "Cut the blocks among N groups of ranks; the ranks of a group share the samples (as many as can be)"},
    {"micro", 0, "N", I64, AT(micro), 1, 1 << 20, RUN | SWEEP | PLAN,
     "Samples that travel together from stage to stage (chosen by the plan)"},
    {"ranks", 0, "N", INT, AT(ranks), 1, RANKS_MAX, PLAN,
     "Predict a run on N ranks, and on fewer (those started, and as far as more ranks help)"},
    {"gpu", 0, "NAME", TEXT, AT(gpu), 0, 0, PLAN,
     "Predict for a GPU a rank, from its published memory and rates: v100, a100, h100, h200, b200, mi250x or "
     "mi300x"},
    {"network", 0, "RATE", TEXT, AT(network), 0, 0, PLAN,
     "Predict for that rate of messages of a rank, as 200Gb (bits) or 25GB (bytes) a second"},
    {"node", 0, "N", INT, AT(node), 1, RANKS_MAX, PLAN,
     "Predict for so many ranks a node, which are near each other (8 with --gpu, else those started here)"},
    {"files", 0, "RATE", TEXT, AT(files), 0, 0, PLAN,
     "Predict for that rate of the file system, all ranks together, as 40GB a second (40GB with --gpu)"},
    {"timeout", 0, "SECONDS", I64, AT(timeout), 0, 1 << 20, COMPUTE | EXPORT | IMPORT,
     "End the job when a rank is silent for so long; a slow rank speaks at every step; MPI's own start and "
     "end get at least 120; 0: never (600)"},
    {"save-every", 0, "SECONDS", SECONDS, AT(save_every), 0, 1e9, RUN | SWEEP,
     "Keep the state inside a block so often, to go on there after a kill; 0: only on a stop (300)"},
    {"no-eval", 0, NULL, FLAG, AT(no_eval), 0, 0, RUN | SWEEP, "Skip the recipe's evaluation"},
    {"result-only", 0, NULL, FLAG, AT(result_only), 0, 0, RUN | SWEEP | EVAL | GENERATE,
     "Take a run's result alone, not the original model and round to nearest, too"},
    {"stop-after-blocks", 0, "N", INT, AT(stop_after), 1, INT_MAX, RUN | SWEEP,
     "End with code 75 after N new blocks, as a stop signal would (for tests)"},
    {"dry-run", 0, NULL, FLAG, AT(dry_run), 0, 0, CLEAN, "Say what would be removed, and remove nothing"},
    {"watch", 'w', NULL, FLAG, AT(watch), 0, 0, STATUS, "Look again every 2 seconds, until the run ends"},
    {"json", 0, NULL, FLAG, AT(json), 0, 0, STATUS | COMPARE, "For programs: one JSON object"},
    {"verbose", 'v', NULL, FLAG, AT(verbose), 0, 0, ALL, "Say more"},
    {0}};

const bq_command_text bq_commands[BQ_COMMANDS] = {
    [BQ_COMMAND_RUN] =
        {"run", "RECIPE.json", 0, 1, "Quantize a model as a recipe says.",
         "Quantize a model as a recipe says, write the outputs and evaluate the result. Everything that "
         "changes the result is in the recipe (blockq help recipe); the options change time and place alone. "
         "A run that was stopped or killed goes on where it was when the same command is given again, on any "
         "number of ranks, and ends with the same bytes. SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) end it cleanly "
         "with code 75; a second SIGINT kills. mpirun makes SIGTERM of a Ctrl-C and kills a second later: "
         "send it SIGUSR1.",
         "Example:\n  blockq run configs/demo.json --set calibration.samples=32 -o demo.run\n"
         "  blockq run --preset best --set model=DIR --set calibration.tokens=FILE.h5\n"
         "  mpirun -n 4 blockq run recipe.json --threads 4"},
    [BQ_COMMAND_PLAN] =
        {"plan", "RECIPE.json", 0, 1, "Say what a run will need, and stop.",
         "Print what each rank of a run would hold in memory, largest first, and how long its phases would "
         "take; refuse what does not fit. With --gpu, --network, --ranks and --memory (of a rank's host) for "
         "machines that are not here. The tokens of the calibration may be missing.",
         "Example:\n  blockq plan configs/phi35_adascale.json --set model=DIR --memory 16G\n"
         "  blockq plan configs/llama3_8b_gptq.json --set model=configs/shapes/llama3_8b --gpu h100 --ranks "
         "256"},
    [BQ_COMMAND_SWEEP] =
        {"sweep", "RECIPE.json...", 1, INT_MAX, "Run many recipes and compare what comes out.",
         "Run every recipe, with every combination of the --vary values, in a run directory of its own below "
         "--out, and print a table: bits a weight, the first evaluation of the model, of round to nearest "
         "and "
         "of the result, what the result costs beside the model in nats, seconds of the passes, peak memory. "
         "A "
         "star marks the runs that no other one beats in bits and in the evaluation. Groups of ranks work on "
         "different runs; a group makes the FP stream and the evaluations of the model once. A sweep that "
         "was "
         "stopped or killed goes on when it is started again; runs that are done are not made again.",
         "Example:\n  blockq sweep configs/demo.json --vary seed=0,1,2 -o seeds\n"
         "  mpirun -n 4 blockq sweep gptq.json adascale.json --vary bits.decoder.bits=4,3 -o sweep --threads "
         "4"},
    [BQ_COMMAND_EVAL] =
        {"eval", "", 0, 0, "Evaluate a model or a run's result.",
         "Measure perplexity: windows of --ctx tokens, each alone, mean loss over all their predictions. One "
         "of --model and --run is needed. Numbers compare only on the same tokens, ctx and windows. --eval "
         "adds other evaluations (blockq help recipe, evals).",
         "Example:\n  blockq eval --model DIR --tokens test.h5 --ctx 512 --rtn 4\n"
         "  blockq eval --run demo.run --tokens test.h5 --eval choice:questions.json,normalize=tokens"},
    [BQ_COMMAND_GENERATE] =
        {"generate", "MODEL|RUN", 1, 1, "Continue prompts, to see what a model writes.",
         "Add tokens to prompts, each time the most likely one, and print their ids, a line for each prompt. "
         "The model is of any kind that blockq reads: a directory, a GGUF file, a quantized checkpoint. Of "
         "the directory of a finished run both the original and the result continue the prompts, so that "
         "they can be compared. It is a check, not a server: there is no cache of keys and values, and every "
         "token reads all weights once. Several ranks share the prompts; the tokens are the same. "
         "tools/generate.py does it with text.",
         "Example:\n  blockq generate jobs/demo/model --prompt-tokens 84,104,101,32 -n 16\n"
         "  blockq generate demo.run --tokens test.h5 --ctx 24 --windows 4"},
    [BQ_COMMAND_EXPORT] =
        {"export", "", 0, 0, "Write a run's result as a model directory.",
         "Write the result of a finished run as a model directory that other programs load, in a format that "
         "the recipe need not have named. Several ranks write it together, the same bytes.",
         "Example:\n  blockq export --run demo.run --format compressed-tensors --out demo-w4"},
    [BQ_COMMAND_IMPORT] =
        {"import", "MODEL.gguf DIR", 2, 2, "Write a GGUF file as a model directory.",
         "Decode a GGUF file, or the parts of one (give the first), into a directory as Hugging Face has it: "
         "safetensors, config.json, tokenizer. The other commands take the GGUF file itself as a model; "
         "other "
         "programs and tools/prepare.py need the directory. A file with a tensor or key that cannot be "
         "represented is refused (code 3). DIR is new, empty, or an earlier import or export. Several ranks "
         "write it together, the same bytes.",
         "Example:\n  blockq import model-Q4_K_M.gguf model\n"
         "  blockq import model-BF16-00001-of-00003.gguf model --type bf16"},
    [BQ_COMMAND_COMPARE] =
        {"compare", "A B", 2, 2, "Say how the weights of two models differ.",
         "Compare the tensors of A and B: each is a model of any kind that blockq reads (a directory, a GGUF "
         "file, a quantized checkpoint), or the directory of a finished run, which stands for its result. "
         "For "
         "each linear: the relative error of B's weights, |A - B| / |A| with the norms of the matrices; the "
         "largest difference of two weights; how many weights differ; where both sides are runs, how many "
         "codes "
         "and how many scales (with their zero points) differ; the bits that each side stores for a weight, "
         "scales and zero points included. Then the other tensors that differ, those that one side lacks, "
         "and "
         "with --tokens the perplexity of both. That the models differ is no error: the exit code is 0. It "
         "is 3 "
         "where a side cannot be read, is a run that is not finished, or has a NaN. One process compares the "
         "tensors; several share the evaluation.",
         "Example:\n  blockq compare model demo.run\n"
         "  blockq compare demo.run demo.run/compressed-tensors --tokens test.h5 --ctx 512\n"
         "  blockq compare --json w4.run w8.run"},
    [BQ_COMMAND_INSPECT] =
        {"inspect", "PATH", 1, 1, "Say what is in a file or directory of blockq.",
         "Print what is in a model directory, a GGUF file, a tokens file, a run directory or a checkpoint "
         "file.",
         "Example:\n  blockq inspect demo.run\n  blockq inspect demo.run/ckpt/block_000.p0.s0.h5"},
    [BQ_COMMAND_TOKENS] =
        {"tokens", "TEXT...", 1, INT_MAX, "Make a tokens file from text.",
         "Write the tokens of the text files, one behind the other, as a tokens file for calibration or "
         "evaluation: by a model's tokenizer, or byte by byte. tools/prepare.py does it with other "
         "tokenizers, and with other ways to join texts.",
         "Example:\n  blockq tokens --tokenizer MODEL_DIR wiki.txt -o wiki.h5\n"
         "  blockq tokens --bytes book.txt -o tokens.h5"},
    [BQ_COMMAND_STATUS] = {"status", "DIR", 1, 1, "Say how far a run is, while it runs or after.",
                           "Read a run directory: whether a process works on it or how the last one ended, "
                           "blocks done, pace and time left, perplexities, the last line of its log. Nothing "
                           "is written, and a run at work is not disturbed.",
                           "Example:\n  blockq status demo.run\n  blockq status --watch demo.run\n  blockq "
                           "status --json demo.run"},
    [BQ_COMMAND_REPORT] =
        {"report", "RUN...", 1, 4096, "Write a page about runs, for a browser.",
         "Write one HTML file about run directories, finished or not: model, recipe, seconds of each "
         "block and part, losses of training, memory planned and used, evaluations; of several runs a "
         "table, and a picture of bits against the evaluation. It needs no other file and no network.",
         "Example:\n  blockq report demo.run -o demo.html\n  blockq report gptq.run adascale.run -o "
         "both.html"},
    [BQ_COMMAND_CLEAN] = {
        "clean", "RUN...", 1, INT_MAX, "Remove from finished runs what can be made again.",
        "Remove the activation files and the states inside blocks of run directories whose blocks are "
        "all done, and say how many bytes that were. Checkpoints, outputs, logs and numbers stay: export, "
        "eval and a later start work as before. A run that is at work or not done is refused.",
        "Example:\n  blockq clean --dry-run demo.run\n  blockq clean demo.run other.run"}};
