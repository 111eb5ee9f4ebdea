#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# mutants.sh [NUMBER...]: bugs put into src/ one at a time; the test of the quick suite that is named with each must fail, and pass without.
# Builds a copy of the tree in a temporary folder; takes some minutes.  Bugs of the cuda backend are in simt/seeded.sh.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-mutants-XXXXXX")
trap 'rm -rf "$temp"' EXIT
(cd "$root" && tar cf - CMakeLists.txt CMakePresets.json cmake src perf tests configs jobs docs) | tar xf - -C "$temp"
cd "$temp"
export BQ_HANG=60 # a bug may hang, which is a failure
cmake --preset release -DBQ_TESTS=ON >log
seen=0 caught=0 missed=0
wanted=" $* "

# passes TEST: build what it needs, run it
passes() {
    local target=$1
    case $1 in
    e2e_*) target="blockq make_micro mutate" ;;
    mpi_*) target=${1%_*} ;;
    esac
    # shellcheck disable=SC2086 # words
    cmake --build --preset release -j "$(nproc)" --target $target >log 2>&1 || { tail -n 20 log && exit 2; }
    ctest --preset release -R "^$1\$" >log 2>&1
}

# mutant WHAT FILE SED TEST
mutant() {
    local what=$1 file=src/$2 change=$3 test=$4 verdict=caught
    seen=$((seen + 1))
    if [[ $wanted != "  " && $wanted != *" $seen "* ]]; then return 0; fi
    passes "$test" || { tail -n 20 log && echo "$test fails without any bug" && exit 2; }
    cp "$file" original
    sed -i -E "$change" "$file"
    if cmp -s original "$file"; then
        verdict="MISSED (the change changes nothing)"
    elif passes "$test"; then
        verdict=MISSED
    fi
    cp original "$file"
    if [[ $verdict == caught ]]; then caught=$((caught + 1)); else missed=$((missed + 1)); fi
    echo "$seen $verdict: $what, by $test"
}

mutant "a sample of activations is believed without its hash" io/state/acts.c 's/ && bq_hash_bytes\(data, a->bytes\) == a->hash\[sample\]//' io_test_acts
mutant "a checkpoint's bytes are not compared with its seal" io/state/raw.c 's/ \|\| hash != s\.hash//' io_test_checkpoint
mutant "two nodes that are no siblings are added" comm/treesum.c 's/ && index % 2 == 0 && / \&\& /' comm_test_treesum
mutant "one random number less depends on the sample" base/rng.h 's/c1 = at\.sample/c1 = 0/' base_test_rng
mutant "a tensor's bytes need not be those of its shape" io/in/safetensors.c 's/end - begin != bytes/false/' io_test_safetensors
mutant "a token one beyond the vocabulary is taken" io/tokens.c 's/t->ids\[i\] < t->vocab/t->ids[i] <= t->vocab/' io_test_tokens
mutant "the last error of a block of columns is not handed on" kernels/cpu/vec_gptq.c 's/k < n; k\+\+/k < n - 1; k++/' driver_test_peer_gptq
mutant "files are opened through links where blockq writes" base/open.c 's/ \| O_NOFOLLOW, fd/, fd/' io_test_files
mutant "a model without a finite perplexity is no error" driver/score/score.c 's/return own \? BQ_DATA : BQ_OK/return BQ_OK/' e2e_agree
mutant "each rank has the losses of its own windows alone" driver/score/score.c '/bq_comm_bcast\(s->comm, score/d' e2e_agree
mutant "of scales that are equally good the last one wins" block/common/scales.c 's/loss\[k\] < loss\[best\]/loss[k] <= loss[best]/' block_test_halving
mutant "of choices that are equally likely the last one is taken" driver/eval/choice.c 's/score\[i\] > score\[best\]/score[i] >= score[best]/' driver_test_choice
mutant "the norm has no epsilon" kernels/cpu/vec_model.c 's/ \/ \(float\)n \+ eps/ \/ (float)n + 0 * eps/' ops_test_model_ops
mutant "a rank that is silent is never missed" comm/heartbeat.c 's/time_now - heard <= timeout/true/' e2e_watch
mutant "the stop of another replica is no stop" block/passes/train.c 's/ctx, s, stop\)/ctx, s, *c->stop)/' mpi_test_inside_3
mutant "of a training the values of the last step are kept" block/passes/train.c 's/ && s->losses\[s->step\] < t->least//' block_test_trained
mutant "no weight counts as clamped" kernels/tuned.h 's/all \|\| code == in/all || in <= grid.qmax/' ops_test_tuned_ops
mutant "an output's file of another content is believed" io/manifest.c 's/ && hash == f->hash.xxh3//' io_test_manifest

echo "$caught caught, $missed missed"
((missed == 0))
