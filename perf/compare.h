/* SPDX-License-Identifier: Apache-2.0 */
/* compare.h - `--compare OLD.csv` of the benchmarks: did a fraction fall?
 *
 * A benchmark prints csv: lines of comment ("# ..."), a header, rows.  The first two columns name a row, and
 * columns whose names begin with "of_" are fractions of something measured in the same run; times and rates
 * depend on the machine and are not compared. */
#ifndef COMPARE_H
#define COMPARE_H

#define COMPARE_LEAST 0.9 /* of the saved fraction */

/* Take `--compare FILE` out of the arguments, wherever it stands; ends the program (2) on a file that is no
 * such csv. */
void compare_open(int *argc, char **argv);

/* A row of the two names was printed, with these fractions in the order of their columns.  Says on standard
 * error which fell below. */
void compare_row(const char *name, const char *shape, int fractions, const double *fraction);

/* 0; or 1 when a fraction fell below COMPARE_LEAST of the saved one, or a saved row did not come. */
int compare_close(void);

#endif
