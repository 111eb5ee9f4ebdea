/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "base/hash.h"
#include "base/log.h"
#include "driver/commands/commands.h"
#include "io/files.h"
#include "io/state/midblock.h"
#include "io/json.h"
#include "io/state/lock.h"
#include "io/state/state.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILE ((size_t)64 << 20)

typedef struct {
    const char *dir;
    bq_state_summary made; /* blocks 0: there is no state yet */
    bq_state *state;
    int64_t done, all; /* blocks of all phases and sweeps */
    double pace;       /* recent seconds a block of the current phase; 0: unknown */
    double left;       /* seconds of that phase; -1: unknown */
    json_t *out;
} status;

static json_t *read_json(const status *s, const char *name) {
    char path[BQ_PATH], *text;
    size_t bytes;
    bq_path_join(path, sizeof path, s->dir, name);
    if (bq_file_read(path, MAX_FILE, &text, &bytes)) return NULL;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    return root;
}

/* A text that is not UTF-8, such as a cut line, becomes "?". */
static json_t *text_of(const char *text) {
    json_t *value = json_string(text);
    return value ? value : json_string("?");
}

static void take_words(status *s, char *log, bq_lock_state lock, const char *who) {
    const char *state = NULL, *reason = "", *last = "";
    for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n")) {
        bq_log_clean(line, 0);
        last = line;
        if (strstr(line, ", plan ")) state = NULL, reason = ""; /* a run's first line */
        if (strstr(line, " done in ")) state = "done";
        if (strstr(line, " stopped with the state written")) state = "stopped";
        if (strstr(line, " error: ")) state = "failed", reason = line;
    }
    if (!state) state = *last ? "killed" : "new";
    if (lock == BQ_LOCK_HELD) state = "running", reason = "";
    if (lock == BQ_LOCK_UNKNOWN && strcmp(state, "killed") == 0) state = "running or killed";
    s->out =
        json_pack("{s:s, s:s, s:o, s:o, s:o}", "dir", s->dir, "state", state, "holder",
                  text_of(lock == BQ_LOCK_HELD ? who : ""), "reason", text_of(reason), "log", text_of(last));
}

static void look_at_log(status *s) {
    enum { TAIL = 1 << 16 };
    char path[BQ_PATH], who[128], *log = NULL;
    size_t bytes = 0;
    bq_path_join(path, sizeof path, s->dir, "run.log");
    bq_lock_state lock = bq_lock_look(s->dir, who);
    if (bq_file_read(path, MAX_FILE, &log, &bytes)) log = calloc(1, 1);
    BQ_CHECK(log, "no memory for the end of a log");
    take_words(s, bytes > TAIL ? log + bytes - TAIL : log, lock, who);
    free(log);
}

static const char *text_at(const status *s, const char *key) {
    return json_string_value(json_object_get(s->out, key));
}

/* The phase's name, or the names of its passes. */
static void name_phase(const json_t *recipe, int phase, char *out, size_t n) {
    const json_t *p = json_array_get(json_object_get(recipe, "phases"), (size_t)phase), *pass;
    const char *name = json_string_value(json_object_get(p, "name"));
    size_t i;
    snprintf(out, n, "%s", name ? name : "");
    json_array_foreach(json_object_get(p, "passes"), i, pass) {
        const char *one = json_string_value(json_object_get(pass, "pass"));
        if (name && *name) break;
        snprintf(out + strlen(out), n - strlen(out), "%s%s", i ? "+" : "", one ? one : "?");
    }
    bq_log_clean(out, 0);
}

static int64_t count_done(const status *s, int sweep, int phase) {
    int64_t n = 0;
    for (int b = 0; b < s->made.blocks; b++) n += bq_state_seems_done(s->state, sweep, phase, b);
    return n;
}

/* Mean seconds a block, over the last rows of run.csv that are of this phase. */
static double pace_of(const status *s, int sweep, int phase) {
    enum { ROWS = 16 };
    char path[BQ_PATH], *text;
    size_t bytes;
    double recent[ROWS], sum = 0;
    int64_t n = 0;
    bq_path_join(path, sizeof path, s->dir, "run.csv");
    if (bq_file_read(path, MAX_FILE, &text, &bytes)) return 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        int of, p;
        double a, b, c, d, e;
        int got =
            sscanf(line, "%d,%d,%*d,%*d,%*d,%*[^,],%*[^,],%lf,%lf,%lf,%lf,%lf", &of, &p, &a, &b, &c, &d, &e);
        if (got == 7 && of == sweep && p == phase) recent[n++ % ROWS] = a + b + c + d + e;
    }
    free(text);
    for (int i = 0; i < ROWS && i < n; i++) sum += recent[i];
    return n ? sum / (double)(n < ROWS ? n : ROWS) : 0;
}

/* Every phase of sweep 0, then the last phase of each later one. */
static json_t *phases(status *s) {
    json_t *list = json_array(), *recipe = read_json(s, "recipe.json");
    bool found =
        strcmp(text_at(s, "state"), "done") == 0; /* the phase at work; if all is done there is none */
    for (int sweep = 0; sweep < s->made.sweeps; sweep++)
        for (int p = sweep ? s->made.phases - 1 : 0; p < s->made.phases; p++) {
            char name[128];
            int64_t done = count_done(s, sweep, p), todo = s->made.blocks - done;
            name_phase(recipe, p, name, sizeof name);
            json_t *one = json_pack("{s:s, s:i, s:i, s:I, s:i}", "name", name, "phase", p, "sweep", sweep,
                                    "done", (json_int_t)done, "blocks", s->made.blocks);
            json_array_append_new(list, one);
            s->done += done, s->all += s->made.blocks;
            if (found || !todo) continue;
            found = true;
            s->pace = pace_of(s, sweep, p);
            if (s->pace > 0) s->left = s->pace * (double)todo / s->made.stages;
        }
    json_decref(recipe);
    return list;
}

static json_t *insides(const status *s) {
    json_t *list = json_array();
    for (int b = 0; b < s->made.blocks; b++) {
        bq_inside in = {.block = b, .fingerprint = s->made.fingerprint};
        if (bq_inside_glance(s->dir, &in))
            json_array_append_new(list, json_pack("{s:i, s:i, s:i, s:i, s:I}", "block", b, "phase", in.phase,
                                                  "sweep", in.sweep, "pass", in.pass, "steps",
                                                  (json_int_t)in.steps));
    }
    return list;
}

/* Samples in activation files: the records of their logs. */
static int64_t samples(const status *s) {
    enum { RECORD = 32 };
    char path[BQ_PATH], dir[BQ_PATH];
    int64_t n = 0;
    bq_path_join(dir, sizeof dir, s->dir, "acts");
    DIR *list = opendir(dir);
    for (struct dirent *e; list && (e = readdir(list));) {
        const char *end = strrchr(e->d_name, '.');
        if (!end || strcmp(end, ".valid")) continue;
        bq_path_join(path, sizeof path, dir, e->d_name);
        int64_t bytes = bq_file_size(path);
        n += bytes > 0 ? bytes / RECORD : 0;
    }
    if (list) closedir(list);
    return n;
}

/* A text that changes with all progress that a restart keeps. */
static void progress_of(const status *s, const json_t *inside, int64_t kept, char text[128]) {
    char *states = json_dumps(inside, JSON_COMPACT);
    BQ_CHECK(states, "no memory for the states of %d blocks", s->made.blocks);
    snprintf(text, 128, "%ld blocks, %ld samples, states %016lx", (long)s->done, (long)kept,
             (unsigned long)bq_hash_text(states));
    free(states);
}

static void look(status *s) {
    char progress[128];
    s->left = -1;
    look_at_log(s);
    BQ_CHECK(s->out, "no memory, or a bad name: %s", s->dir);
    if (bq_state_read(s->dir, &s->made))
        s->state = bq_state_load(s->dir, s->made.fingerprint, s->made.sweeps, s->made.phases, s->made.blocks);
    json_t *list = phases(s), *inside = insides(s), *result = read_json(s, "result.json");
    int64_t kept = samples(s);
    progress_of(s, inside, kept, progress);
    json_t *more =
        json_pack("{s:I, s:I, s:o, s:s, s:o, s:I, s:i, s:i, s:f, s:o, s:o, s:o}", "done", (json_int_t)s->done,
                  "blocks", (json_int_t)s->all, "phases", list, "progress", progress, "inside", inside,
                  "samples", (json_int_t)kept, "stages", s->made.stages, "replicas", s->made.replicas,
                  "seconds", s->made.seconds, "pace", s->pace > 0 ? json_real(s->pace) : json_null(), "left",
                  s->left >= 0 ? json_real(s->left) : json_null(), "result", result ? result : json_null());
    BQ_CHECK(more && json_object_update(s->out, more) == 0, "no memory for the state of '%s'", s->dir);
    json_decref(more);
}

static long number_at(const json_t *object, const char *key) {
    return (long)json_integer_value(json_object_get(object, key));
}

static void print(const status *s) {
    const json_t *one, *value;
    const char *name;
    size_t i;
    const char *holder = text_at(s, "holder");
    printf("%s: %s%s%s%s\n", s->dir, text_at(s, "state"), *holder ? " (" : "", holder, *holder ? ")" : "");
    json_array_foreach(json_object_get(s->out, "phases"), i, one) {
        long sweep = number_at(one, "sweep");
        printf("  %-24s %ld of %ld blocks", json_string_value(json_object_get(one, "name")),
               number_at(one, "done"), number_at(one, "blocks"));
        if (s->made.sweeps > 1) printf(", sweep %ld%s", sweep, sweep ? ", where it is wanted" : "");
        printf("\n");
    }
    json_array_foreach(json_object_get(s->out, "inside"), i, one) printf(
        "  inside block %-11ld step %ld is kept\n", number_at(one, "block") + 1, number_at(one, "steps"));
    if (s->pace > 0)
        printf("  pace                     %.1f s a block, %d at a time\n", s->pace, s->made.stages);
    long t = (long)(s->left + 0.5);
    if (s->left >= 0)
        printf("  left of this phase       about %ld:%02ld:%02ld\n", t / 3600, t / 60 % 60, t % 60);
    json_object_foreach(json_object_get(s->out, "result"), name, value) {
        if (json_is_real(value)) printf("  perplexity of %-10.40s %.4f\n", name, json_real_value(value));
        if (json_is_null(value)) printf("  perplexity of %-10.40s not finite\n", name);
    }
    if (*text_at(s, "reason")) printf("  why                      %s\n", text_at(s, "reason"));
    const char *log = text_at(s, "log"), *eta = strstr(log, "%, ETA ");
    if (eta && strcmp(text_at(s, "state"), "running") == 0)
        printf("  at work on               %s, %.*s left\n", eta + 7 + strcspn(eta + 7, " ") + 1,
               (int)strcspn(eta + 7, ","), eta + 7);
    printf("  last words               %s\n", log);
}

static void say(status *s, bool json) {
    size_t bytes;
    char *text = json ? bq_json_text_of(s->out, &bytes) : NULL;
    if (json)
        fwrite(text, 1, bytes, stdout);
    else
        print(s);
    free(text);
    fflush(stdout);
}

int bq_cmd_status(const bq_args *args, bq_comm *comm) {
    char path[BQ_PATH];
    bool running;
    (void)comm;
    bq_path_join(path, sizeof path, args->file[0], "ckpt");
    if (!bq_file_exists(path)) return bq_refuse(BQ_USAGE, "%s: there is no run", args->file[0]);
    do {
        status s = {.dir = args->file[0]};
        look(&s);
        running = args->watch && strcmp(text_at(&s, "state"), "running") == 0;
        if (args->watch && isatty(STDOUT_FILENO)) fputs("\033[H\033[2J", stdout); /* home, clear */
        say(&s, args->json);
        json_decref(s.out);
        bq_state_close(s.state);
        if (running) nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
    } while (running);
    return BQ_OK;
}
