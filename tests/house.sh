#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# house.sh [BUILD]: the house rules that a machine can check.  One line a violation, `rule file: what`; lines of
# house_exceptions.txt (`rule file`) are known, and one that no longer occurs is a violation, too: the list only shrinks.
# BUILD is a build folder without sanitizers, for the rule on symbols.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-}
sources=(src/*/*.[ch] src/*/*.def src/*/*.cu src/*/*/*.[ch] src/*/*/*.cu src/*/*/*.cuh)
tests=(tests/*/*.[ch] tests/*/*.cc tests/*/*/*.[ch])
scripts=(jobs/*.sh tests/*.sh tests/*/*.sh .ci/run)

# say RULE: lines `file:line:text` become violations
say() { sed -E "s/^([^:]+):(.*)/$1 \1: \2/"; }
# Calls of these functions; comments start with a '*' or stand behind '//' or '/*'.
calls() { grep -nHE "(^|[^A-Za-z0-9_.\">])($1) *\(" "${@:2}" | grep -vE '^[^:]+:[0-9]+: *(/?\*|//)' || true; }
within() { printf '%s\n' "${sources[@]}" | grep -E "$1"; }
without() { printf '%s\n' "${sources[@]}" | grep -vE "$1"; }

layers() { # a layer, and what it may include
    local layer allowed
    while read -r layer allowed; do
        grep -rnE '#include "' "src/$layer" | grep -vE "#include \"($allowed)/" || true
    done <<'TEXT'
base base
kernels base|kernels
comm base|kernels|comm
block base|kernels|comm|block
io base|kernels|comm|io
driver base|kernels|comm|block|io|driver
TEXT
}

rooms() { # a room includes itself and those before it; in driver a .c has a header of its name, or of its name up to a '_'
    local room before="" file name
    grep -rnE '#include "block/(common|passes)/' src/block/model || true
    grep -rnE '#include "block/passes/' src/block/common | grep -v 'passes/pass\.h' || true
    grep -rnE '#include "io/(out|state)/' src/io/in src/io/*.[ch] | grep -vE 'io/state/(h5|raw|h5_strict)\.h' || true
    for room in eval recipe load score plan streams run commands; do
        before+=${before:+|}$room
        grep -rnE '#include "driver/' "src/driver/$room" | grep -vE "#include \"driver/($before)/" || true
    done
    for file in src/driver/*/*.c; do
        if grep -qE '^(int (bq_cmd_|main)|const bq_eval_kind )' "$file"; then continue; fi # commands.h and eval.h have them
        name=${file%.c}
        while [[ ! -e $name.h && $name == *_* ]]; do name=${name%_*}; done
        [[ -e $name.h ]] || echo "$file:no header"
    done
    grep -nHE 'kind *[!=]= *BQ_PASS' "${sources[@]}" | grep -v '^src/block/' || true # what a pass is, its file knows
    grep -nHE '"[^" ]*(model\.(layers|norm|embed)|lm_head\.)' "${sources[@]}" |
        grep -vE '^src/(io/in|io/out|block/model|base/family)/|^src/io/quark' || true # names of tensors
}

homes() { # what may be called only in its home
    mapfile -t files < <(without '^src/base/arena\.c|^src/(io|driver)/')
    calls '[mc]alloc|realloc|reallocarray|aligned_alloc|posix_memalign|strn?dup|v?asprintf|open_memstream' "${files[@]}"
    mapfile -t files < <(without '^src/base/die\.c')
    calls '_?_?exit|_Exit|quick_exit|abort|assert|raise|kill' "${files[@]}"
    mapfile -t files < <(without '^src/(base/log\.c|driver/)')
    calls 'v?printf|puts|putchar|perror|system|popen' "${files[@]}"
    mapfile -t files < <(without '^src/base/log\.c')
    grep -nH stderr "${files[@]}" | grep -v 'isatty' || true
    mapfile -t files < <(without '^src/base/log\.c') # the wall clock, which jumps
    calls 'time|gettimeofday|localtime(_r)?' "${files[@]}"
    grep -nH CLOCK_REALTIME "${files[@]}" || true
    mapfile -t files < <(without '^src/comm/')
    calls 'MPI_[A-Z][a-z_]+' "${files[@]}"
    calls 'MPI_Abort' src/comm/treesum.c
    mapfile -t files < <(without '^src/io/')
    calls 'H5[A-Z]+[a-z_0-9]+|rename|fsync|mkdir' "${files[@]}"
    mapfile -t files < <(without '^src/base/(open|clock)\.c') # one place decides how files are opened
    calls 'fopen|freopen|open|openat|creat|mktemp|tmpnam' "${files[@]}"
    mapfile -t files < <(without '^src/kernels/')
    calls 'omp_[a-z_]+|cblas_[a-z]+' "${files[@]}"
}

schemes() { # a linear's scheme is one struct: elsewhere no list of its fields, and no ends of codes by hand
    mapfile -t files < <(without '^src/(kernels/grid\.h|io/state/checkpoint\.c)')
    grep -nHE '(bool|int|int64_t) [a-z_, ]*\bsymmetric\b[a-z_, ]*;|\bsymmetric [!=]?= |\bscale_type\b' "${files[@]}" || true
    mapfile -t files < <(without '^src/(driver/recipe/(keys|recipe_check|rounding)|io/state/checkpoint|io/out/compressed_tensors)\.c')
    grep -nHF '"symmetric"' "${files[@]}" || true
    mapfile -t files < <(without '^src/(io/(out/gptq|out/pack|in/packed_rows)\.c|kernels/element\.h)') # these store a code plus half its range, or its sign
    grep -nHE '<< \(?[A-Za-z_.>-]*bits - 1' "${files[@]}" || true
}

ops() { # an op has a test in tests/ops; that both backends have it, the linker checks
    local op
    for op in $(sed -nE 's/^OP\([a-z]+, ([a-z0-9_]+),.*/\1/p' src/kernels/ops.def); do
        grep -qF -- "op->$op(" tests/ops/*.[ch] || echo "src/kernels/ops.def:no test of $op"
    done
}

conditions() { # include guards and AddressSanitizer's own macro, nothing else
    grep -nHE '^ *# *(if|ifdef|ifndef|elif)' "${sources[@]}" | grep -vE '#ifndef BQ_[A-Z0-9_]+_(CU)?H$' |
        grep -vE '^src/base/arena\.c:.*__SANITIZE_ADDRESS__' || true
}

symbols() { # every public name of a library
    [[ $build ]] || return 0
    nm -A -g --defined-only "$build"/src/libbq_*.a "$build"/src/*/libbq_*.a 2>/dev/null |
        awk 'NF > 2 && $NF !~ /^bq_/ { sub(/:.*/, "", $1); n = split($1, part, "/"); print part[n] ":" $NF }'
}

lengths() {
    awk -v limit=400 'FNR == 1 && file { if (n > limit) print file ":" n " lines" } { file = FILENAME; n = FNR }
        END { if (n > limit) print file ":" n " lines" }' "${sources[@]}" "${tests[@]}"
    awk 'FNR == 1 { inside = 0 } /\) \{$/ && !inside { start = FNR; inside = 1 }
        /^\}/ { if (inside && FNR - start >= 60) print FILENAME ":" start ": a function of " FNR - start + 1 " lines"; inside = 0 }' \
        "${sources[@]}"
    for folder in src/*; do
        [[ ! -d $folder ]] || [[ -s $folder/README.md && $(wc -l <"$folder/README.md") -le 30 ]] ||
            echo "$folder/README.md:missing, or more than 30 lines"
    done
    awk 'length($0) > 110 { print FILENAME ":" FNR ":" length($0) " columns" }' "${sources[@]}" "${tests[@]}"
}

words() { # unfinished work; places that only the author's machine has
    git ls-files -z --cached --others --exclude-standard -- . ':!tests/house.sh' 2>/dev/null | xargs -0 grep -nHIE \
        '\b(TODO|FIXME|XXX)\b|#if 0|\.\./shared|(^|[^a-zA-Z0-9_.$}*-])/(work|root)/|/tmp/b-' || true
}

licences() { # in the first lines of each file that has comments; REUSE.toml speaks for the rest
    git ls-files -- '*.[ch]' '*.cc' '*.cu' '*.cuh' '*.def' '*.sh' '*.py' '*CMakeLists.txt' 2>/dev/null | while read -r file; do
        head -n 3 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0$\|SPDX-License-Identifier: Apache-2.0 \*/$' || echo "$file:no SPDX line"
    done
}

layout() {
    command -v clang-format-14 >/dev/null || return 0
    clang-format-14 --dry-run "${sources[@]}" "${tests[@]}" 2>&1 | grep -oE '^[^ ]+:[0-9]+:[0-9]+: warning' |
        awk -F: '{ n[$1]++ } END { for (f in n) print f ":" n[f] " places" }' | sort
}

shell() {
    command -v shellcheck >/dev/null || return 0
    shellcheck -S warning -x -P SCRIPTDIR -f gcc "${scripts[@]}" || true
}

violations=$(for rule in layers rooms homes schemes ops conditions symbols lengths words licences layout shell; do $rule | say $rule; done)
known=$(grep -vE "^ *(#|$)$([[ $build ]] || echo '|^symbols')" tests/house_exceptions.txt || true)
fresh=$(grep -vFf <(sed 's/$/:/' <<<"${known:-nothing is known}") <<<"$violations" || true)
while read -r line; do
    [[ ! $line ]] || grep -qF "$line:" <<<"$violations" || fresh+=$'\n'"exception $line: no longer needed"
done <<<"$known"
if [[ ${fresh//$'\n'/} ]]; then
    sed '/^$/d' <<<"$fresh"
    exit 1
fi
echo "the house rules hold ($(grep -c . <<<"$known") exceptions)"
