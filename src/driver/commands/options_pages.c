/* SPDX-License-Identifier: Apache-2.0 */
/* The option table as a manual page and as completion for bash. */
#include "driver/commands/options.h"

#include "base/die.h"
#include "driver/recipe/recipe.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* roff: a backslash and a dash are written with one before them; a line must not start with a dot. */
static void put_roff(FILE *out, const char *text) {
    bool start = true;
    for (const char *c = text; *c; c++) {
        if (start && (*c == '.' || *c == '\'')) fputs("\\&", out);
        if (*c == '\\')
            fputs("\\e", out);
        else if (*c == '-')
            fputs("\\-", out);
        else
            fputc(*c, out);
        start = *c == '\n';
    }
    fputc('\n', out);
}

static bool takes(const bq_option *o, int command) { return o->commands & 1 << command; }

static void put_option(FILE *out, const bq_option *o) {
    fputs(".TP\n", out);
    if (o->letter) fprintf(out, "\\fB\\-%c\\fR, ", o->letter);
    fputs("\\fB\\-\\-", out);
    for (const char *c = o->name; *c; c++) fprintf(out, *c == '-' ? "\\-" : "%c", *c);
    fprintf(out, "\\fR%s%s\n", o->arg ? " " : "", o->arg ? o->arg : "");
    put_roff(out, o->help);
}

void bq_options_man(FILE *out) {
    fputs(".TH BLOCKQ 1 \"\" \"blockq " BQ_VERSION
          "\" \"User commands\"\n.SH NAME\nblockq \\- quantize large language "
          "models on clusters\n.SH SYNOPSIS\n.B blockq\n\\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n",
          out);
    put_roff(
        out,
        "Quantizes the decoder blocks of large language models, on one machine or on many (mpirun, Slurm). "
        "`blockq help recipe` prints all keys of a recipe, `blockq help schemes` the schemes by name.");
    for (int c = 1; c < BQ_COMMANDS; c++) {
        const bq_command_text *text = &bq_commands[c];
        fprintf(out, ".SH BLOCKQ %s %s\n", text->name, text->args);
        put_roff(out, text->about);
        for (const bq_option *o = bq_options; o->name; o++)
            if (takes(o, c)) put_option(out, o);
        fputs(".PP\n.nf\n", out);
        put_roff(out, text->example);
        fputs(".fi\n", out);
    }
    fputs(".SH EXIT STATUS\n.nf\n", out);
    put_roff(out, bq_exit_codes);
    fputs(".fi\n", out);
}

void bq_options_completion(FILE *out) {
    fputs("# bash completion for blockq, made by `blockq help completion`\n_blockq() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} options=\n    case ${COMP_WORDS[1]-} in\n",
          out);
    for (int c = 1; c < BQ_COMMANDS; c++) {
        fprintf(out, "    %s) options='--help", bq_commands[c].name);
        for (const bq_option *o = bq_options; o->name; o++)
            if (takes(o, c)) fprintf(out, " --%s", o->name);
        fputs("' ;;\n", out);
    }
    fputs("    esac\n    if ((COMP_CWORD == 1)); then\n        mapfile -t COMPREPLY < <(compgen -W 'help",
          out);
    for (int c = 1; c < BQ_COMMANDS; c++) fprintf(out, " %s", bq_commands[c].name);
    fputs("' -- \"$word\")\n    elif [[ $word == -* ]]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$word\")\n    fi\n}\n"
          "complete -o default -F _blockq blockq\n",
          out);
}

/* Does the heading have the word, alone or between other signs than letters and digits? */
static bool has_word(const char *heading, size_t length, const char *word) {
    const size_t n = strlen(word);
    for (const char *at = heading; (at = memmem(at, length - (size_t)(at - heading), word, n)); at++)
        if (!isalnum((unsigned char)at[-1]) && at[-1] != '-' && !isalnum((unsigned char)at[n]) &&
            at[n] != '-')
            return true;
    return false;
}

bool bq_options_recipe(FILE *out, const char *word) {
    char *text = NULL;
    size_t bytes = 0;
    bool found = false, inside = false;
    FILE *page = open_memstream(&text, &bytes);
    BQ_CHECK(page, "no memory for the page of recipes");
    bq_recipe_doc(page);
    fclose(page);
    for (char *line = text, *end; *word && (end = strchr(line, '\n')); line = end + 1) {
        const size_t length = (size_t)(end - line);
        if (strncmp(line, "## ", 3) == 0) found |= inside = has_word(line, length, word);
        if (inside) fprintf(out, "%.*s\n", (int)length, line);
    }
    free(text);
    return found;
}
