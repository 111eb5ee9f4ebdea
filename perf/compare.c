/* SPDX-License-Identifier: Apache-2.0 */
#include "compare.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 512, FRACTIONS = 8, COLUMNS = 32 };

static struct {
    char name[128]; /* the first two columns, with their comma */
    double fraction[FRACTIONS];
    bool seen;
} saved[ROWS];
static int rows, fell;

static void refuse(const char *path, const char *what) {
    fprintf(stderr, "%s: %s\n", path, what);
    exit(2);
}

/* The fields of a line, cut in place; returns how many. */
static int fields(char *line, char *field[COLUMNS]) {
    int n = 0;
    line[strcspn(line, "\r\n")] = 0;
    for (char *at; n < COLUMNS && (at = strsep(&line, ",")); n++) field[n] = at;
    return n;
}

static void read_saved(const char *path) {
    char line[1024], *field[COLUMNS];
    int column[FRACTIONS], fractions = 0, columns = 0;
    FILE *f = fopen(path, "r");
    if (!f) refuse(path, "cannot be opened");
    while (fgets(line, sizeof line, f)) {
        if (*line == '#') continue;
        int n = fields(line, field);
        for (int i = 2; i < n && !columns; i++)
            if (strncmp(field[i], "of_", 3) == 0 && fractions < FRACTIONS) column[fractions++] = i;
        bool header = !columns;
        if (header) columns = n;
        if (header) continue;
        if (n != columns || rows == ROWS) refuse(path, "not a benchmark's csv");
        snprintf(saved[rows].name, sizeof saved[rows].name, "%s,%s", field[0], field[1]);
        for (int k = 0; k < fractions; k++) saved[rows].fraction[k] = atof(field[column[k]]);
        rows++;
    }
    fclose(f);
    if (!fractions || !rows) refuse(path, "no rows with fractions");
}

void compare_open(int *argc, char **argv) {
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--compare")) continue;
        if (i + 1 == *argc) refuse("--compare", "a csv is needed");
        read_saved(argv[i + 1]);
        for (int k = i; k + 2 <= *argc; k++) argv[k] = argv[k + 2]; /* and the NULL behind them */
        *argc -= 2;
        return;
    }
}

void compare_row(const char *name, const char *shape, int fractions, const double *fraction) {
    char key[128];
    snprintf(key, sizeof key, "%s,%s", name, shape);
    for (int i = 0; i < rows; i++) {
        if (strcmp(saved[i].name, key)) continue;
        saved[i].seen = true;
        for (int k = 0; k < fractions && k < FRACTIONS; k++) {
            if (fraction[k] >= COMPARE_LEAST * saved[i].fraction[k]) continue;
            fprintf(stderr, "%s: fraction %.3f, saved %.3f\n", key, fraction[k], saved[i].fraction[k]);
            fell++;
        }
    }
}

int compare_close(void) {
    for (int i = 0; i < rows; i++) {
        if (saved[i].seen) continue;
        fprintf(stderr, "%s: saved, but not measured now\n", saved[i].name);
        fell++;
    }
    return fell > 0;
}
