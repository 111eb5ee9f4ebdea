/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/options.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/commands/version.h"
#include "driver/recipe/keys.h"
#include "driver/recipe/presets.h"
#include "io/out/import.h"
#include "io/state/mpio.h"

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char *const there_are =
    "run, plan, sweep, eval, generate, export, import, compare, inspect, tokens, status, report, clean";
const char bq_exit_codes[] = "Exit codes:\n"
                             "   0  done\n"
                             "   1  the environment broke (memory, disk, a lost rank), or a bug\n"
                             "   2  command line or recipe\n"
                             "   3  model or data files\n"
                             "   4  launched the wrong way (srun without PMIx, an unusable number of ranks)\n"
                             "  75  stopped on request with the state written: the same command goes on\n";

/* ---- values ---- */

/* Print a message and where to read more, on rank 0. */
static int complain(bq_command c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int complain(bq_command c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    bq_vlog(BQ_ERROR, 0, fmt, ap);
    va_end(ap);
    bq_log(BQ_INFO, "try 'blockq%s%s --help'", c ? " " : "", c ? bq_commands[c].name : "");
    return BQ_USAGE;
}

static int complain_value(const bq_args *args, const bq_option *o, const char *text, const char *must) {
    return complain(args->command, "--%s %.200s: must be %s", o->name, text, must);
}

static int take_number(bq_args *args, const bq_option *o, const char *text) {
    char *end, must[80];
    void *at = (char *)args + o->at;
    bool whole = o->kind == INT || o->kind == I64;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    double x = whole ? (double)n : strtod(text, &end);
    bool reads = whole ? !errno : strchr("0123456789.", *text) != NULL;
    snprintf(must, sizeof must, "a %s from %.0f to %.0f",
             whole             ? "whole number"
             : o->kind == REAL ? "number"
                               : "number of seconds",
             o->min, o->max);
    if (!reads || end == text || *end || !(x >= o->min && x <= o->max))
        return complain_value(args, o, text, must);
    if (o->kind == INT)
        *(int *)at = (int)n;
    else if (o->kind == I64)
        *(int64_t *)at = n;
    else
        *(double *)at = x;
    return BQ_OK;
}

static int take_bytes(bq_args *args, const bq_option *o, const char *text) {
    static const char units[] = "KMGT";
    char *end, must[48];
    errno = 0;
    unsigned long long x = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (unit) end += strcmp(end + 1, "iB") == 0 ? 3 : 1;
    if (errno || *text < '0' || *text > '9' || *end || !x || x > (SIZE_MAX >> shift))
        return complain_value(args, o, text, "bytes, or a whole number with K, M, G or T");
    snprintf(must, sizeof must, "at least %.0f bytes", o->min);
    if ((double)(x << shift) < o->min) return complain_value(args, o, text, must);
    *(size_t *)(void *)((char *)args + o->at) = (size_t)x << shift;
    return BQ_OK;
}

/* "cpu", "cuda", "cuda:N" or "auto". */
static bool is_device(const char *text) {
    if (strncmp(text, "cuda:", 5) == 0) return text[5] && strspn(text + 5, "0123456789") == strlen(text + 5);
    return strcmp(text, "cpu") == 0 || strcmp(text, "cuda") == 0 || strcmp(text, "auto") == 0;
}

static int take_acts(bq_args *args, const bq_option *o, const char *text) {
    static const char *const names[] = {
        [BQ_ACTS_BY_ALL] = "shared", [BQ_ACTS_BY_ROOT] = "root", [BQ_ACTS_BY_MPI] = "parallel"};
    size_t i = 0, n = sizeof names / sizeof *names;
    while (i < n && strcmp(text, names[i])) i++;
    if (i == n) return complain_value(args, o, text, "shared, root or parallel");
    if (i == BQ_ACTS_BY_MPI && !bq_mpio_built())
        return complain(args->command,
                        "--acts parallel: this build has no MPI-IO: configure it with -DBQ_PHDF5=ON");
    args->acts = (bq_acts_by)i;
    return BQ_OK;
}

static int take(bq_args *args, const bq_option *o, char *text) {
    char allowed[160], name[32];
    void *at = (char *)args + o->at;
    switch (o->kind) {
    case FLAG: *(bool *)at = true; return BQ_OK;
    case INT:
    case I64:
    case SECONDS:
    case REAL: return take_number(args, o, text);
    case BYTES: return take_bytes(args, o, text);
    case DEVICE:
        if (!is_device(text)) return complain_value(args, o, text, "cpu, cuda, cuda:N or auto");
        args->device = text;
        return BQ_OK;
    case ACTS: return take_acts(args, o, text);
    case FORMAT:
        args->format = text;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(text, ":"), text);
        if (bq_format_find(name) >= 0 && strlen(text) < BQ_PATH_MAX) return BQ_OK;
        bq_key_allowed(&(bq_key){.type = BQ_KEY_CHOICE, .row = bq_format_choice}, allowed, sizeof allowed);
        return complain_value(args, o, text, allowed);
    case TYPE:
        args->type = text;
        return bq_import_format(text) ? BQ_OK : complain_value(args, o, text, "f32, bf16 or f16");
    case EVALUATION:
        if (args->neval == BQ_EVALS) return complain(args->command, "more than %d --eval", BQ_EVALS);
        if (!*text || strlen(text) >= BQ_PATH_MAX) break;
        args->eval[args->neval++] = text;
        return BQ_OK;
    case PROMPT:
        if (args->nprompt == BQ_PROMPTS)
            return complain(args->command, "more than %d --prompt-tokens", BQ_PROMPTS);
        if (!*text) return complain_value(args, o, text, "token ids with commas between them");
        args->prompt[args->nprompt++] = text;
        return BQ_OK;
    case SET:
        if (args->nset == BQ_SETS - (args->command == BQ_COMMAND_SWEEP ? BQ_VARIED : 0))
            return complain(args->command, "more than %d --set", args->nset);
        args->set[args->nset++] = text;
        return BQ_OK;
    case VARY:
        if (args->nvary == BQ_VARIED) return complain(args->command, "more than %d --vary", BQ_VARIED);
        args->vary[args->nvary++] = text;
        return BQ_OK;
    case TEXT:
        if (!*text || strlen(text) >= BQ_PATH_MAX) break;
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

static int key_of(const bq_option *o) { return o->letter ? o->letter : FIRST_KEY + (int)(o - bq_options); }

static error_t parse(int key, char *arg, struct argp_state *state) {
    parsing *p = state->input;
    if (key == HELP_KEY) return p->help = true, ECANCELED;
    if (key == ARGP_KEY_ARGS) {
        p->args->file = state->argv + state->next;
        p->args->nfile = state->argc - state->next;
        return 0;
    }
    if (key == ARGP_KEY_ERROR && !p->code && !p->help) p->bad = state->argv[state->next - 1];
    for (const bq_option *o = bq_options; o->name; o++) {
        if (!(o->commands & 1 << p->args->command) || key_of(o) != key) continue;
        p->code = take(p->args, o, arg);
        return p->code ? EINVAL : 0;
    }
    return ARGP_ERR_UNKNOWN;
}

/* argp's form of a command's rows. */
typedef struct {
    struct argp argp;
    struct argp_option option[BQ_OPTIONS + 1];
    char doc[2048];
} form;

static void fill(form *f, bq_command c) {
    int n = 0;
    *f = (form){0};
    for (const bq_option *o = bq_options; o->name; o++) {
        if (!(o->commands & 1 << c)) continue;
        f->option[n++] = (struct argp_option){o->name, key_of(o), o->arg, 0, o->help, 0};
    }
    f->option[n] = (struct argp_option){"help", HELP_KEY, NULL, 0, "This text", -1};
    snprintf(f->doc, sizeof f->doc, "%s\v%s", bq_commands[c].about, bq_commands[c].example);
    const char *args = *bq_commands[c].args ? bq_commands[c].args : NULL;
    f->argp = (struct argp){f->option, parse, args, f->doc, NULL, NULL, NULL};
}

/* ---- what a command needs ---- */

static const char *recipe_lacks(const bq_args *a) {
    if (a->preset && a->nfile) return "give a recipe or --preset, not both";
    return a->preset || a->nfile ? NULL : "RECIPE.json is missing, or --preset";
}

static const char *lacks(const bq_args *a) {
    switch (a->command) {
    case BQ_COMMAND_PLAN: return recipe_lacks(a);
    case BQ_COMMAND_SWEEP:
    case BQ_COMMAND_RUN:
        if (a->command == BQ_COMMAND_RUN && recipe_lacks(a)) return recipe_lacks(a);
        if (a->command == BQ_COMMAND_SWEEP && !a->out[0]) return "--out is missing";
        if (a->acts == BQ_ACTS_BY_ROOT && a->split_reference)
            return "--acts root and --split-reference exclude each other";
        if (a->acts == BQ_ACTS_BY_ROOT && !a->scratch)
            return "--acts root needs --scratch, a place for each rank's files";
        return NULL;
    case BQ_COMMAND_EVAL:
        if (!a->model == !a->run) return "give one of --model and --run";
        return a->tokens || a->neval ? NULL : "--tokens is missing, or --eval";
    case BQ_COMMAND_GENERATE:
        if (!a->tokens == !a->nprompt) return "give one of --prompt-tokens and --tokens";
        return a->top_k && !(a->temperature > 0) ? "--top-k needs a --temperature above 0" : NULL;
    case BQ_COMMAND_EXPORT:
        if (!a->run) return "--run is missing";
        return a->out[0] ? NULL : "--out is missing";
    case BQ_COMMAND_REPORT: return a->out[0] ? NULL : "--out is missing";
    case BQ_COMMAND_TOKENS:
        if (!a->bytes == !a->tokenizer) return "give one of --tokenizer and --bytes";
        return a->out[0] ? NULL : "--out is missing";
    default: return NULL;
    }
}

/* argp does not say why an option is wrong; of a known one it is the value. */
static const char *why_bad(const parsing *p) {
    const char *name = p->bad + strspn(p->bad, "-");
    size_t n = strcspn(name, "=");
    for (const bq_option *o = bq_options; o->name; o++) {
        if (!(o->commands & 1 << p->args->command) || strlen(o->name) != n) continue;
        if (strncmp(o->name, name, n)) continue;
        return o->arg ? "needs a value" : "takes no value";
    }
    return n == 1 ? "no such option, or its value is missing" : "no such option";
}

/* Does libgomp accept it: numbers of threads, one for each level, with commas between them? */
static bool is_threads(const char *at) {
    for (long most = BQ_THREADS_MAX;; most = INT_MAX, at++) {
        char *end;
        errno = 0;
        long n = strtol(at, &end, 10);
        if (end == at || errno || n < 1 || n > most) return false;
        at = end + strspn(end, " ");
        if (*at != ',') return *at == 0;
    }
}

/* libgomp reads it before main: it takes all cores for a bad value, and fails with too many threads. */
static int check_environment(const bq_args *args) {
    const char *threads = getenv("OMP_NUM_THREADS");
    if (!threads || args->threads || !((COMPUTE | EXPORT) & 1 << args->command) || is_threads(threads))
        return BQ_OK;
    return complain(args->command,
                    "OMP_NUM_THREADS=%.200s: must be a whole number from 1 to %d; unset, all cores are used",
                    threads, BQ_THREADS_MAX);
}

/* The recipe's name with .run, in the current directory. */
static void name_run(bq_args *args) {
    const char *given = args->preset ? args->preset : args->file[0], *slash = strrchr(given, '/'),
               *name = slash ? slash + 1 : given;
    size_t n = strlen(name);
    if (n > 5 && strcmp(name + n - 5, ".json") == 0) n -= 5;
    snprintf(args->out, sizeof args->out, "%.*s.run", (int)(n < 250 ? n : 250), name);
}

static int parse_command(int argc, char **argv, bq_args *args) {
    form f;
    bq_command c = args->command;
    parsing p = {.args = args};
    args->device = "auto", args->ctx = 2048, args->timeout = 600, args->save_every = 300;
    if (c == BQ_COMMAND_GENERATE) args->ctx = 32, args->windows = 1, args->count = 32;
    if (c == BQ_COMMAND_EXPORT) args->format = "compressed-tensors";
    args->shard = BQ_SHARD_BYTES;
    fill(&f, c);
    argp_parse(&f.argp, argc, argv, ARGP_SILENT, NULL, &p);
    if (p.code) return p.code;
    if (p.help) {
        if (bq_log_rank() == 0) bq_options_help(c, stdout);
        args->command = BQ_COMMAND_NONE;
        return BQ_OK;
    }
    if (p.bad) return complain(c, "%.200s: %s", p.bad, why_bad(&p));
    if (args->nfile < bq_commands[c].low) return complain(c, "%s is missing", bq_commands[c].args);
    if (args->nfile > bq_commands[c].high)
        return complain(c, "one argument too many: %.200s", args->file[bq_commands[c].high]);
    const char *why = lacks(args);
    if (why) return complain(c, "%s", why);
    if (check_environment(args)) return BQ_USAGE;
    if (c == BQ_COMMAND_RUN && !args->out[0]) name_run(args);
    return BQ_OK;
}

/* ---- the whole ---- */

void bq_options_help(bq_command c, FILE *out) {
    form f;
    char name[32];
    if (c != BQ_COMMAND_NONE) {
        fill(&f, c);
        snprintf(name, sizeof name, "blockq %s", bq_commands[c].name);
        argp_help(&f.argp, out, ARGP_HELP_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, name);
        return;
    }
    fputs("Usage: blockq COMMAND [OPTIONS]\n\n"
          "Quantizes the decoder blocks of large language models, on one machine or on many.\n\n"
          "Commands:\n",
          out);
    for (int i = 1; i < BQ_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", bq_commands[i].name, bq_commands[i].brief);
    fputs("  help       help COMMAND: its options; help recipe: all keys of a recipe, help\n"
          "             recipe WORD: those of a part (gptq, bits); help schemes: schemes by name;\n"
          "             help man: a manual page; help completion: for bash.\n\n"
          "  blockq COMMAND --help   a command's options, with an example\n"
          "  blockq --version\n\n"
          "A first run: blockq run demo\n\n",
          out);
    fputs(bq_exit_codes, out);
}

static bq_command find_command(const char *name) {
    for (int i = 1; i < BQ_COMMANDS; i++)
        if (strcmp(name, bq_commands[i].name) == 0) return (bq_command)i;
    return BQ_COMMAND_NONE;
}

/* Topics of `help` that are no commands. */
static const struct {
    const char *name;
    void (*print)(FILE *);
} pages[] = {{"recipe", bq_recipe_doc},
             {"schemes", bq_preset_doc},
             {"man", bq_options_man},
             {"completion", bq_options_completion}};

int bq_options_parse(int argc, char **argv, bq_args *args) {
    *args = (bq_args){.command = BQ_COMMAND_NONE};
    bool speaks = bq_log_rank() == 0;
    if (argc < 2) return complain(BQ_COMMAND_NONE, "no command; there are %s", there_are);
    const char *word = argv[1], *topic = argc > 2 ? argv[2] : NULL;
    args->command = find_command(word);
    if (args->command) return parse_command(argc - 1, argv + 1, args);
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        if (speaks) bq_version_print(stdout);
        return BQ_OK;
    }
    bool help = strcmp(word, "help") == 0;
    if (help && topic && argc > 3 && strcmp(topic, "recipe") == 0) {
        if (!speaks || bq_options_recipe(stdout, argv[3])) return BQ_OK;
        return complain(BQ_COMMAND_NONE,
                        "help recipe %.100s: no part of a recipe has that name; blockq help recipe has all",
                        argv[3]);
    }
    for (size_t i = 0; help && topic && i < sizeof pages / sizeof *pages; i++) {
        if (strcmp(topic, pages[i].name)) continue;
        if (speaks) pages[i].print(stdout);
        return BQ_OK;
    }
    bq_command about = help && topic ? find_command(topic) : BQ_COMMAND_NONE;
    if (help && topic && !about)
        return complain(about, "help %.200s: no such topic; there are recipe, schemes, man, completion, %s",
                        topic, there_are);
    if (!help && strcmp(word, "--help") && strcmp(word, "-h"))
        return complain(BQ_COMMAND_NONE, "%.200s: no such command; there are %s", word, there_are);
    if (speaks) bq_options_help(about, stdout);
    return BQ_OK;
}
