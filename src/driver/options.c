#include "driver/options.h"

#include "base/die.h"
#include "base/log.h"

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- tables ---- */

enum { HELP = 1 << BQ_COMMAND_NONE, RUN = 1 << BQ_COMMAND_RUN, PLAN = 1 << BQ_COMMAND_PLAN };
enum { EVAL = 1 << BQ_COMMAND_EVAL, EXPORT = 1 << BQ_COMMAND_EXPORT };
enum { INSPECT = 1 << BQ_COMMAND_INSPECT, TOKENS = 1 << BQ_COMMAND_TOKENS };
enum { ALL = RUN | PLAN | EVAL | EXPORT | INSPECT | TOKENS, COMPUTE = RUN | PLAN | EVAL };

typedef enum { FLAG, INT, I64, BYTES, SECONDS, TEXT, OUT, FORMAT, DEVICE, SET } kind;

typedef struct {
    const char *name; /* NULL ends the table */
    char letter;      /* 0: none */
    const char *arg;  /* NULL: a flag */
    kind kind;
    size_t at; /* in bq_args */
    double min, max;
    int commands;
    const char *help;
} option;

#define AT(field) offsetof(bq_args, field)
static const option options[] = {
    {"set", 0, "KEY=VALUE", SET, 0, 0, 0, RUN | PLAN,
     "Override a key of the recipe, as in --set calibration.samples=64; may be given often"},
    {"model", 0, "DIR", TEXT, AT(model), 0, 0, EVAL, "Evaluate this model directory"},
    {"run", 0, "DIR", TEXT, AT(run), 0, 0, EVAL | EXPORT, "Use the result in this run directory"},
    {"tokens", 0, "FILE.h5", TEXT, AT(tokens), 0, 0, EVAL, "Evaluate on these tokens"},
    {"ctx", 0, "N", I64, AT(ctx), 2, 1 << 20, EVAL, "Tokens of a window (2048)"},
    {"windows", 0, "N", I64, AT(windows), 0, 1e9, EVAL, "How many windows; 0: all (0)"},
    {"offset", 0, "N", I64, AT(offset), 0, 1e15, EVAL, "First token (0)"},
    {"rtn", 0, "BITS", INT, AT(rtn), 2, 8, EVAL, "Also evaluate round to nearest, 2 to 8 bits, per channel"},
    {"format", 0, "FORMAT", FORMAT, AT(format), 0, 0, EXPORT,
     "compressed-tensors: packed codes and scales; safetensors: quantized values as float weights "
     "(compressed-tensors)"},
    {"shard", 0, "BYTES", BYTES, AT(shard), BQ_SHARD_MIN, 0, EXPORT,
     "Tensors in one file, at most, as in 2G; ranks write different files (5000000000)"},
    {"bytes", 0, NULL, FLAG, AT(bytes), 0, 0, TOKENS, "A token is a byte; the only tokenizer built in"},
    {"out", 'o', "DIR", OUT, AT(out), 0, 0, RUN, "Run directory (the recipe's name with .run)"},
    {"out", 'o', "DIR", OUT, AT(out), 0, 0, EXPORT, "Directory of the new model"},
    {"out", 'o', "FILE.h5", OUT, AT(out), 0, 0, TOKENS, "File to write"},
    {"threads", 0, "N", INT, AT(threads), 1, 4096, COMPUTE,
     "Threads of this rank (OMP_NUM_THREADS, or all cores)"},
    {"device", 0, "NAME", DEVICE, AT(device), 0, 0, COMPUTE, "cpu or auto (auto)"},
    {"memory", 0, "BYTES", BYTES, AT(memory), 0, 0, COMPUTE,
     "What this rank may use, as in 12G (all that the system gives)"},
    {"scratch", 0, "DIR", TEXT, AT(scratch), 0, 0, COMPUTE,
     "Node-local place for streams that memory cannot hold"},
    {"root-acts", 0, NULL, FLAG, AT(root_acts), 0, 0, RUN | PLAN,
     "Rank 0 alone touches the run's activation files; the others keep copies of theirs in --scratch"},
    {"stages", 0, "N", INT, AT(stages), 1, 4096, RUN | PLAN,
     "Cut the blocks among N groups of ranks; the ranks of a group share the samples (as many as can be)"},
    {"micro", 0, "N", I64, AT(micro), 1, 1 << 20, RUN | PLAN,
     "Samples that travel together from stage to stage (chosen by the plan)"},
    {"timeout", 0, "SECONDS", I64, AT(timeout), 0, 1 << 20, COMPUTE | EXPORT,
     "End the job when a rank is silent for so long; a slow rank speaks at every step; 0: never (600)"},
    {"save-every", 0, "SECONDS", SECONDS, AT(save_every), 0, 1e9, RUN,
     "Keep the state inside a block so often, to go on there after a kill; 0: only on a stop (300)"},
    {"no-eval", 0, NULL, FLAG, AT(no_eval), 0, 0, RUN, "Skip the recipe's evaluation"},
    {"stop-after-blocks", 0, "N", INT, AT(stop_after), 1, INT_MAX, RUN,
     "End with code 75 after N new blocks, as a stop signal would (for tests)"},
    {"verbose", 'v', NULL, FLAG, AT(verbose), 0, 0, ALL, "Say more"},
    {0}};

typedef struct {
    const char *name, *args;
    int low, high; /* how many arguments */
    const char *brief, *about, *example;
} command;

static const command commands[BQ_COMMANDS] = {
    [BQ_COMMAND_RUN] =
        {"run", "RECIPE.json", 1, 1, "Quantize a model as a recipe says.",
         "Quantize a model as a recipe says, write the outputs and evaluate the result. Everything that "
         "changes the result is in the recipe (blockq help recipe); the options change time and place alone. "
         "A run that was stopped or killed goes on where it was when the same command is given again, on any "
         "number of ranks, and ends with the same bytes. SIGTERM and SIGUSR1 end it cleanly with code 75.",
         "Example:\n  blockq run configs/demo.json --set calibration.samples=32 -o demo.run\n"
         "  mpirun -n 4 blockq run recipe.json --threads 4"},
    [BQ_COMMAND_PLAN] =
        {"plan", "RECIPE.json", 1, 1, "Say what a run will need, and stop.",
         "Print what each rank of a run would hold in memory, largest first, and how long its phases would "
         "take; refuse what does not fit.",
         "Example:\n  blockq plan configs/phi35_adascale.json --set model=DIR --memory 16G"},
    [BQ_COMMAND_EVAL] =
        {"eval", "", 0, 0, "Measure the perplexity of a model or a run's result.",
         "Measure perplexity: windows of --ctx tokens, each alone, mean loss over all their predictions. One "
         "of --model and --run is needed. Numbers compare only on the same tokens, ctx and windows.",
         "Example:\n  blockq eval --model DIR --tokens test.h5 --ctx 512 --rtn 4\n"
         "  blockq eval --run demo.run --tokens test.h5"},
    [BQ_COMMAND_EXPORT] =
        {"export", "", 0, 0, "Write a run's result as a model directory.",
         "Write the result of a finished run as a model directory that other programs load, in a format that "
         "the recipe need not have named. Several ranks write it together, the same bytes.",
         "Example:\n  blockq export --run demo.run --format compressed-tensors --out demo-w4"},
    [BQ_COMMAND_INSPECT] =
        {"inspect", "PATH", 1, 1, "Say what is in a file or directory of blockq.",
         "Print what is in a model directory, a tokens file, a run directory or a checkpoint file.",
         "Example:\n  blockq inspect demo.run\n  blockq inspect demo.run/ckpt/block_000.p0.s0.h5"},
    [BQ_COMMAND_TOKENS] = {
        "tokens", "TEXT...", 1, INT_MAX, "Make a tokens file from text.",
        "Write the bytes of the text files, one behind the other, as a tokens file. For models with a "
        "tokenizer of their own use tools/prepare.py.",
        "Example:\n  blockq tokens --bytes book.txt -o tokens.h5"}};

static const char *const there_are = "run, plan, eval, export, inspect, tokens";
static const char *const codes =
    "Exit codes:\n"
    "   0  done\n"
    "   1  the environment broke (memory, disk, a lost rank), or a bug\n"
    "   2  command line or recipe\n"
    "   3  model or data files\n"
    "   4  launched the wrong way (srun without PMIx, an unusable number of ranks)\n"
    "  75  stopped on request with the state written: the same command goes on\n";

/* ---- values ---- */

/* A message and where to read more; rank 0 prints. */
static int complain(bq_command c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int complain(bq_command c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    bq_vlog(BQ_ERROR, 0, fmt, ap);
    va_end(ap);
    bq_log(BQ_INFO, "try 'blockq%s%s --help'", c ? " " : "", c ? commands[c].name : "");
    return BQ_USAGE;
}

static int complain_value(const bq_args *args, const option *o, const char *text, const char *must) {
    return complain(args->command, "--%s %.200s: must be %s", o->name, text, must);
}

static int take_number(bq_args *args, const option *o, const char *text) {
    char *end, must[80];
    errno = 0;
    long long x = strtoll(text, &end, 10);
    snprintf(must, sizeof must, "a whole number from %.0f to %.0f", o->min, o->max);
    if (errno || end == text || *end || (double)x < o->min || (double)x > o->max) {
        return complain_value(args, o, text, must);
    }
    if (o->kind == INT)
        *(int *)(void *)((char *)args + o->at) = (int)x;
    else
        *(int64_t *)(void *)((char *)args + o->at) = x;
    return BQ_OK;
}

static int take_bytes(bq_args *args, const option *o, const char *text) {
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long x = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (unit) end += strcmp(end + 1, "iB") == 0 ? 3 : 1;
    if (errno || *text < '0' || *text > '9' || *end || !x || x > (SIZE_MAX >> shift)) {
        return complain_value(args, o, text, "bytes, or a whole number with K, M, G or T");
    }
    if ((double)(x << shift) < o->min) {
        char must[48];
        snprintf(must, sizeof must, "at least %.0f bytes", o->min);
        return complain_value(args, o, text, must);
    }
    *(size_t *)(void *)((char *)args + o->at) = (size_t)x << shift;
    return BQ_OK;
}

static int take_seconds(bq_args *args, const option *o, const char *text) {
    char *end, must[80];
    double x = strtod(text, &end);
    snprintf(must, sizeof must, "a number of seconds from %.0f to %.0f", o->min, o->max);
    if (!strchr("0123456789.", *text) || end == text || *end || !(x >= o->min && x <= o->max))
        return complain_value(args, o, text, must);
    *(double *)(void *)((char *)args + o->at) = x;
    return BQ_OK;
}

static int take(bq_args *args, const option *o, char *text) {
    void *at = (char *)args + o->at;
    switch (o->kind) {
    case FLAG: *(bool *)at = true; return BQ_OK;
    case INT:
    case I64: return take_number(args, o, text);
    case BYTES: return take_bytes(args, o, text);
    case SECONDS: return take_seconds(args, o, text);
    case DEVICE:
        if (strcmp(text, "cpu") && strcmp(text, "auto")) return complain_value(args, o, text, "cpu or auto");
        args->device = text;
        return BQ_OK;
    case FORMAT:
        args->format = strcmp(text, "safetensors") == 0 ? BQ_OUT_SAFETENSORS : BQ_OUT_COMPRESSED;
        if (args->format == BQ_OUT_SAFETENSORS || strcmp(text, "compressed-tensors") == 0) return BQ_OK;
        return complain_value(args, o, text, "safetensors or compressed-tensors");
    case SET:
        if (args->nset == BQ_SETS) return complain(args->command, "more than %d --set", BQ_SETS);
        args->set[args->nset++] = text;
        return BQ_OK;
    case TEXT:
        if (!*text) break;
        *(const char **)at = text;
        return BQ_OK;
    case OUT:
        if (!*text || strlen(text) >= sizeof args->out) break;
        strcpy(args->out, text);
        return BQ_OK;
    }
    return complain_value(args, o, text, "a path of 1 to 1023 bytes");
}

/* ---- argp ---- */

enum { HELP_KEY = 'h', FIRST_KEY = 256 }; /* an option without a letter: FIRST_KEY + its row */

typedef struct {
    bq_args *args;
    int code;        /* of the first refusal */
    const char *bad; /* what argp could not read, NULL: nothing */
    bool help;
} parsing;

static int key_of(const option *o) { return o->letter ? o->letter : FIRST_KEY + (int)(o - options); }

static error_t parse(int key, char *arg, struct argp_state *state) {
    parsing *p = state->input;
    if (key == HELP_KEY) {
        p->help = true;
        return ECANCELED;
    }
    if (key == ARGP_KEY_ARGS) {
        p->args->file = state->argv + state->next;
        p->args->nfile = state->argc - state->next;
        return 0;
    }
    if (key == ARGP_KEY_ERROR && !p->code && !p->help) p->bad = state->argv[state->next - 1];
    for (const option *o = options; o->name; o++) {
        if (!(o->commands & 1 << p->args->command) || key_of(o) != key) continue;
        p->code = take(p->args, o, arg);
        return p->code ? EINVAL : 0;
    }
    return ARGP_ERR_UNKNOWN;
}

/* argp's form of a command's rows. */
typedef struct {
    struct argp argp;
    struct argp_option option[sizeof options / sizeof *options + 2];
    char doc[1024];
} form;

static void fill(form *f, bq_command c) {
    int n = 0;
    *f = (form){0};
    for (const option *o = options; o->name; o++) {
        if (!(o->commands & 1 << c)) continue;
        f->option[n++] = (struct argp_option){o->name, key_of(o), o->arg, 0, o->help, 0};
    }
    f->option[n] = (struct argp_option){"help", HELP_KEY, NULL, 0, "This text", -1};
    snprintf(f->doc, sizeof f->doc, "%s\v%s", commands[c].about, commands[c].example);
    const char *args = *commands[c].args ? commands[c].args : NULL;
    f->argp = (struct argp){f->option, parse, args, f->doc, NULL, NULL, NULL};
}

/* ---- what a command needs ---- */

static const char *lacks(const bq_args *a) {
    switch (a->command) {
    case BQ_COMMAND_RUN:
        return a->root_acts && !a->scratch ? "--root-acts needs --scratch, a place for each rank's files"
                                           : NULL;
    case BQ_COMMAND_EVAL:
        if (!a->model == !a->run) return "give one of --model and --run";
        return a->tokens ? NULL : "--tokens is missing";
    case BQ_COMMAND_EXPORT:
        if (!a->run) return "--run is missing";
        return a->out[0] ? NULL : "--out is missing";
    case BQ_COMMAND_TOKENS:
        if (!a->bytes) return "--bytes is missing; for a model's own tokenizer use tools/prepare.py";
        return a->out[0] ? NULL : "--out is missing";
    default: return NULL;
    }
}

/* argp says only that an option is wrong; known ones are wrong by their value. */
static const char *why_bad(const parsing *p) {
    const char *name = p->bad + strspn(p->bad, "-");
    size_t n = strcspn(name, "=");
    for (const option *o = options; o->name; o++) {
        if (!(o->commands & 1 << p->args->command) || strlen(o->name) != n) continue;
        if (strncmp(o->name, name, n)) continue;
        return o->arg ? "needs a value" : "takes no value";
    }
    return n == 1 ? "no such option, or its value is missing" : "no such option";
}

/* The recipe's name with .run, in the current directory. */
static void name_run(bq_args *args) {
    const char *slash = strrchr(args->file[0], '/'), *name = slash ? slash + 1 : args->file[0];
    size_t n = strlen(name);
    if (n > 5 && strcmp(name + n - 5, ".json") == 0) n -= 5;
    snprintf(args->out, sizeof args->out, "%.*s.run", (int)(n < 250 ? n : 250), name);
}

static int parse_command(int argc, char **argv, bq_args *args) {
    form f;
    bq_command c = args->command;
    parsing p = {.args = args};
    args->device = "auto", args->ctx = 2048, args->timeout = 600, args->format = BQ_OUT_COMPRESSED;
    args->shard = BQ_SHARD_BYTES;
    args->save_every = 300;
    fill(&f, c);
    argp_parse(&f.argp, argc, argv, ARGP_SILENT, NULL, &p);
    if (p.code) return p.code;
    if (p.help) {
        if (bq_log_rank() == 0) bq_options_help(c, stdout);
        args->command = BQ_COMMAND_NONE;
        return BQ_OK;
    }
    if (p.bad) return complain(c, "%.200s: %s", p.bad, why_bad(&p));
    if (args->nfile < commands[c].low) return complain(c, "%s is missing", commands[c].args);
    if (args->nfile > commands[c].high) {
        return complain(c, "one argument too many: %.200s", args->file[commands[c].high]);
    }
    const char *why = lacks(args);
    if (why) return complain(c, "%s", why);
    if (c == BQ_COMMAND_RUN && !args->out[0]) name_run(args);
    return BQ_OK;
}

/* ---- the whole ---- */

void bq_options_help(bq_command c, FILE *out) {
    form f;
    char name[32];
    if (c != BQ_COMMAND_NONE) {
        fill(&f, c);
        snprintf(name, sizeof name, "blockq %s", commands[c].name);
        argp_help(&f.argp, out, ARGP_HELP_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, name);
        return;
    }
    fputs("Usage: blockq COMMAND [OPTIONS]\n\n"
          "Quantizes the decoder blocks of large language models, on one machine or on many.\n\n"
          "Commands:\n",
          out);
    for (int i = 1; i < BQ_COMMANDS; i++) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].brief);
    fputs("  help       help COMMAND: its options; help recipe: all keys of a recipe.\n\n"
          "  blockq COMMAND --help   a command's options, with an example\n"
          "  blockq --version\n\n"
          "A first run: blockq run configs/demo.json\n\n",
          out);
    fputs(codes, out);
}

static bq_command find_command(const char *name) {
    for (int i = 1; i < BQ_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) return (bq_command)i;
    }
    return BQ_COMMAND_NONE;
}

int bq_options_parse(int argc, char **argv, bq_args *args) {
    *args = (bq_args){.command = BQ_COMMAND_NONE};
    bool speaks = bq_log_rank() == 0;
    if (argc < 2) return complain(BQ_COMMAND_NONE, "no command; there are %s", there_are);
    const char *word = argv[1], *topic = argc > 2 ? argv[2] : NULL;
    args->command = find_command(word);
    if (args->command) return parse_command(argc - 1, argv + 1, args);
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        if (speaks) puts("blockq " BQ_VERSION);
        return BQ_OK;
    }
    bool help = strcmp(word, "help") == 0;
    if (help && topic && strcmp(topic, "recipe") == 0) {
        if (speaks) bq_recipe_doc(stdout);
        return BQ_OK;
    }
    bq_command about = help && topic ? find_command(topic) : BQ_COMMAND_NONE;
    if (help && topic && !about) {
        return complain(BQ_COMMAND_NONE, "help %.200s: no such topic; there are recipe, %s", topic,
                        there_are);
    }
    if (!help && strcmp(word, "--help") && strcmp(word, "-h")) {
        return complain(BQ_COMMAND_NONE, "%.200s: no such command; there are %s", word, there_are);
    }
    if (speaks) bq_options_help(about, stdout);
    return BQ_OK;
}
