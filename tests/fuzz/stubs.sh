#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# stubs.sh ARCHIVE: C source of our functions that objects in the archive name and none has, on standard output.  A recipe's keys are
# in the passes, whose work (ops, messages) no fuzzer calls.
set -eu
temp=$(mktemp)
trap 'rm -f "$temp"' EXIT
nm --defined-only -g "$1" | awk 'NF == 3 { print $3 }' | sort -u >"$temp"
echo '#include <stdlib.h>'
nm -u "$1" | awk '/ U bq_/ { print $2 }' | sort -u | comm -23 - "$temp" | sed 's/.*/void &(void); void &(void) { abort(); }/'
