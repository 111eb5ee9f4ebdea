#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh - from a bare Debian 12 to a quantized model: install what is missing, build, run, print the result.  Beside an installed
# blockq it only runs.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: bash jobs/demo.sh [--moe] [--out DIR] [--seed N] [-- OPTIONS]

Installs what is missing (Debian packages, as root or by sudo), builds blockq, and quantizes the small model in
jobs/demo to 4 bits.  Takes about a minute on two cores.  The last line is the result: perplexities of the model, of
round to nearest and of AdaScale, and the directory that holds everything.

  --moe       the model with experts, by GPTQ and by AdaScale: two runs, in DIR/gptq and DIR/adascale.  For each block
              the log says how many tokens its experts get, and how many experts get too few
  --out DIR   run directory; a run in there that was stopped goes on (build/demo/run, always a new run; beside an
              installed blockq ./blockq-demo)
  --seed N    of the random numbers (0)
  OPTIONS     more of `blockq run`, as in: -- --set eval.windows=50
TEXT
}

refuse() {
    echo "demo.sh: $1; try --help" >&2
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$root/build/demo
run=
seed=0
moe=
while (($#)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --moe)
        moe=1
        shift
        ;;
    --out | --seed)
        if (($# < 2)) || [[ ! $2 ]]; then refuse "$1 needs a value"; fi
        if [[ $1 == --out ]]; then run=$2; else seed=$2; fi
        shift 2
        ;;
    --)
        shift
        break
        ;;
    *) refuse "$1: no such option" ;;
    esac
done
[[ $seed =~ ^[0-9]+$ ]] || refuse "--seed $seed: a whole number is needed"

# say TEXT COMMAND...: run it in the source tree with its output in a log, which is shown only when it fails.
say() {
    local text=$1 since=$SECONDS
    shift
    printf '%s ... ' "$text"
    if ! (cd "$root" && "$@") >"$work/log" 2>&1 </dev/null; then
        printf 'failed:\n'
        tail -n 30 "$work/log"
        exit 1
    fi
    printf '%d s\n' $((SECONDS - since))
}

since=$SECONDS
if [[ -e $root/CMakeLists.txt ]]; then
    # shellcheck source=packages.sh
    . "$root/jobs/packages.sh"
    bq_packages_install "${bq_packages[@]}"
    ((SECONDS - since < 2)) || echo "installed in $((SECONDS - since)) s"
    since=$SECONDS
    mkdir -p "$work"
    say "configuring" cmake --preset release -DBQ_TESTS=OFF
    say "building" cmake --build --preset release --target blockq --parallel "$(nproc)"
    blockq=$root/build/src/blockq
    if [[ ! $run ]]; then
        run=$work/run
        rm -rf "$run"
    fi
else
    blockq=$root/../../bin/blockq
    : "${run:=$PWD/blockq-demo}"
fi

# Open MPI refuses root and more ranks than cores, and binds a rank to one core, unless it is told.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
more=("$@")
quantize() { # RECIPE DIR OPTIONS...: prints the result line
    mpirun --bind-to none -n 1 "$blockq" run "$root/configs/$1.json" --set seed="$seed" --out "$2" "${@:3}" "${more[@]}" </dev/null
}
if [[ $moe ]]; then
    mkdir -p "$run"
    run=$(realpath "$run")
    gptq=$(quantize demo_moe_gptq "$run/gptq")
    adascale=$(quantize demo_moe_adascale "$run/adascale" --result-only)
    adascale=${adascale##* adascale=}
    result="${gptq% out=*} adascale=${adascale% out=*} out=$run"
else
    result=$(quantize demo "$run")
fi
echo "everything after installation took $((SECONDS - since)) s"
echo "$result"
