#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every named fault in src/ happens: the run ends with one message (or does without what failed, and warns), and
# the same command then ends with the bytes of a run without faults.
. "$(dirname "$0")/lib.sh"
micro llama_default
echo '{}' >m_llama_default/tokenizer.json # for outputs to copy
recipe plain.json m_llama_default 6
sed 's/"samples": 6/"samples": 90/' plain.json >scratch.json # streams that count
recipe stages.json m_llama_default 6 ', "segments": 2'
memory=$("$blockq" plan scratch.json 2>/dev/null | awk '$1 == "total" { print int(($2 - 0.5) * 1e6) }')
mkdir scratch
soon=(timeout -s KILL "$hang")
run_plain() { "${soon[@]}" "$blockq" run plain.json "$@"; }
run_scratch() { "${soon[@]}" "$blockq" run scratch.json --scratch scratch --memory "$memory" "$@"; }
run_stages() { OMP_NUM_THREADS=1 "${soon[@]}" "$mpiexec" -n 2 "$blockq" run stages.json --stages 2 "$@"; }
for how in plain scratch stages; do expect 0 run_$how -o clean_$how; done

hits=$(more "1 4" "1 2 3 4 5 7 11") sanitized=
if ((${BQ_SANITIZE:-0})); then hits=1 sanitized=1; fi
mapfile -t points < <(grep -rhoE '(bq_fault|bq_fault_signal|fails)\("[a-z0-9_]+"' "$here/../../src" | cut -d'"' -f2 | sort -u)
check "src/ has fault points" [ ${#points[@]} -ge 25 ]
for point in "${points[@]}"; do check "docs name $point" grep -q "\`$point\`" "$here/../../docs/architecture.md"; done

# one_fault HOW POINT HIT[@RANK]: 0: it ended the run; 1: the run did without, or the point was not reached so often
one_fault() {
    local how=$1 name=$2:$3 dir=$2_$3 code=0
    BQ_FAULT=$name run_"$how" -o "$dir" --save-every 0.0001 >out 2>err </dev/null || code=$?
    if ((code)); then
        check "$name ended with code $code" [ "$code" -le 3 ]
        one_error "[a-z]"
    fi
    if ((code)) && [[ -s $dir/run.log ]]; then
        for ((i = 0; i < 50; i++)); do # mpiexec need not wait for its last rank
            expect 0 "$blockq" status "$dir"
            if ! grep -q running out; then break; fi
            sleep 0.1
        done
        check "$name: status says failed: $(head -n 1 out)" grep -q '^[^ ]*: failed$' out
    fi
    expect 0 run_"$how" -o "$dir"
    same "clean_$how" "$dir"
    check "$name left $(find "$dir" -name '*.tmp')" [ -z "$(find "$dir" scratch -name '*.tmp' -o -name 'blockq-stream*')" ]
    rm -rf "$dir"
    ((code))
}

# point HOW NAME HITS: each of them.
point() {
    local hit ended=
    for hit in $3; do
        if one_fault "$1" "$2" "$hit"; then ended="$ended $hit"; fi
    done
    echo "$2: ended the run at hit${ended:- none}"
    check "$2 was never reached" [ -n "$ended$sanitized" -o "$2" = lock_take ]
}

for name in "${points[@]}"; do
    case $name in
    loss_nan) ;; # below
    sweep_late) ;; # tests/e2e/test_agree.sh
    sensitivity | rotation) ;; # tests/e2e/test_mixed.sh, test_learn.sh
    step_* | open_stop | close_stop) ;; # a signal: test_watch.sh, test_inside.sh, test_kill.sh
    ckpt_kill | ckpt_stall | ckpt_thread) ;; # tests/e2e/test_behind.sh
    mpio | pin | ahead_thread) ;; # in builds that have them: tests/phdf5.sh, tests/simt/test_cuda.sh
    scratch_*) point scratch "$name" "1 3" ;;
    reader_thread) point stages "$name" 1 ;;
    acts_write | acts_read | ckpt_write | stream_nan) point plain "$name" "$hits" && point stages "$name" "1@1" ;;
    *) point plain "$name" "$hits" ;;
    esac
done

# A loss that is no number is named, and the run goes on.
BQ_FAULT=loss_nan:9 expect 0 run_plain -o nan
check "block, sample and iteration: $(cat err)" grep -q 'block 2: the loss of sample 2 is nan at iteration 2' err
check "what was done about it" grep -q 'block 2: the loss became NaN or infinite; adascale left the block as it was' err
BQ_FAULT=stream_nan:9 expect 3 run_plain -o nan2
one_error 'block [12]/2: the [a-z]* stream of sample [0-5] has nan at token 0, channel 0'

# A full disk: one message, and with room the bytes of a run without it.
mkdir -p small
if mount -t tmpfs -o size=64k tmpfs small 2>/dev/null; then
    expect 1 run_plain -o small/run
    one_error 'No space left on device'
    mount -o remount,size=8m small
    expect 0 run_plain -o small/run
    same clean_plain small/run
fi
finish
