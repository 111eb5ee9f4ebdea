/* SPDX-License-Identifier: Apache-2.0 */
/* version.h - what `blockq --version` says: its version and commit, and what it was built with. */
#ifndef BQ_VERSION_H
#define BQ_VERSION_H

#include <stdio.h>

/* The short hash of the commit that was built, with "+" behind it if files had changed; "" outside of git. */
extern const char bq_commit[];

/* Needs no MPI.  Local. */
void bq_version_print(FILE *out);

#endif
