# SPDX-License-Identifier: Apache-2.0
# cmake -DSOURCE=DIR -DTO=FILE.c -P commit.cmake: the commit of a git tree as C source; the file changes only when the commit does.
execute_process(COMMAND git -C "${SOURCE}" rev-parse --short=9 HEAD OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(commit)
  execute_process(COMMAND git -C "${SOURCE}" diff --quiet HEAD RESULT_VARIABLE changed ERROR_QUIET)
  if(changed)
    string(APPEND commit "+")
  endif()
endif()
file(CONFIGURE OUTPUT "${TO}" CONTENT "/* Made by cmake/commit.cmake. */
#include \"driver/commands/version.h\"
const char bq_commit[] = \"@commit@\";
" @ONLY)
