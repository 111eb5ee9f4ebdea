#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every file that a run reads back, damaged: a bit flipped in several places, cut to half, emptied, removed, replaced by noise.
# The same command ends with the bytes of a run that nobody disturbed.  BQ_FULL=1: every file in every way; else each file in
# some.
. "$(dirname "$0")/lib.sh"
export OMP_NUM_THREADS=1
micro
mkdir shape
cat >shape/config.json <<TEXT
{"architectures": ["LlamaForCausalLM"], "blockq_procedural": 3, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48,
 "max_position_embeddings": 128, "model_type": "llama", "num_attention_heads": 2, "num_hidden_layers": 5, "num_key_value_heads": 1,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "vocab_size": 97}
TEXT
recipe files.json shape 1
expect 0 "$blockq" run files.json --set 'phases=[{"passes":[{"pass":"rtn"}]}]' --set bits.decoder.bits=8 --no-eval -o files
mv files/safetensors model # five blocks, in a file
recipe r.json model 4 ', "segments": 4, "sweeps": 3'
run=("$blockq" run r.json --set phases.0.passes.0.sweep_iterations=3 --set outputs.0.shard_bytes=100000 --save-every 0.000000001)
LC_ALL=C awk 'BEGIN { x = 7; for (i = 0; i < 1048576; i++) { x = (x * 1103 + 12345) % 65521; printf "%c", 1 + x % 255 } }' >noise

expect 0 "${run[@]}" -o clean
expect 0 "$blockq" eval --run clean --tokens eval.h5 --ctx 32 --windows 5
evaluated=$(result)
BQ_FAULT=ckpt_rename:8 expect 1 "${run[@]}" -o half # inside a block, with boundaries of two sweeps
for file in ckpt/inside_003.A.h5 ckpt/inside_003.B.h5 acts/qt_003.s0.h5 acts/qt_003.s1.h5; do check "half has $file" [ -s half/$file ]; done

# What must be equal.  Activations: their samples; a bit that HDF5 does not look at may stay as it is.
acts='qt_???.s?.h5' # not those that a stage hands to the next one
results() { (cd "$1" && find ckpt safetensors compressed-tensors result.json acts -name "*.h5" -path "acts/$acts" -o -type f ! -path 'acts/*' \
    ! -name state.json ! -name lock ! -name model.hash.json | LC_ALL=C sort); }

# flip FILE WHERE: one bit; WHERE in thousandths of its length
flip() {
    local size at byte
    size=$(stat -c %s "$1")
    if ((size == 0)); then return 0; fi
    at=$((size * $2 / 1000 < size ? size * $2 / 1000 : size - 1))
    byte=$(od -An -tu1 -j $at -N 1 "$1")
    printf "\\x$(printf %x $((byte ^ 4)))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}
damage() { # FILE HOW
    case $2 in
    half) truncate -s $(($(stat -c %s "$1") / 2)) "$1" ;;
    empty) truncate -s 0 "$1" ;;
    gone) rm "$1" ;;
    noise) cp noise "$1" ;;
    *) flip "$1" "$2" ;;
    esac
}
hows=(0 500 1000 half empty gone noise 3 90 250 700 985)
some=0
# A finished run, for a command that needs it whole: as it was, or refused at once.
finished() { # FILE HOW
    local code=0
    "$blockq" eval --run damaged --tokens eval.h5 --ctx 32 --windows 5 >out 2>err || code=$?
    case $code in
    0) check "eval: $1 ($2): $(result)" [ "$(result)" = "$evaluated" ] ;;
    2 | 3) # a recipe that has changed may lead anywhere
        case $1 in *recipe.json) one_error '[a-z]' ;; *) one_error "$(basename "$1" | sed 's/p0.*//')\|not finished" ;; esac ;;
    *) bad "eval: $1 ($2): exit code $code: $(cat err)" ;;
    esac
}
# each DIR: files of it, damaged one by one, but for cards: a card without its mark is somebody's own text
each() {
    local file how n=0
    while read -r file; do
        for how in "${hows[@]}"; do
            n=$((n + 1))
            # quick: one in thirteen of all pairs
            if [[ ! ${BQ_FULL-} ]] && ((n % 13 != some)); then continue; fi
            rm -rf damaged
            cp -a "$1" damaged
            damage "damaged/$file" "$how"
            if [[ $1 == clean ]]; then finished "$file" "$how"; fi
            expect 0 "${run[@]}" -o damaged
            cp err damaged.err
            before=$failures acts='qt_???.s?.h5'
            if [[ $file == ./acts/*.h5 && " 3 90 250 " == *" $how "* ]]; then acts=none; fi
            same clean damaged
            if ((failures > before)); then echo "    ($1/$file: $how)" && cat damaged.err; fi
        done
    done < <(cd "$1" && find . -type f ! -name lock ! -name run.log ! -name README.md | LC_ALL=C sort)
    some=$((some + 5))
}
each half
each clean

# On a grid all replicas take the same way, whichever of them meets the damage: with files of all, and of rank 0.
mkdir scratch
grid() { # RANKS FROM FILE HOW OPTIONS: that run, that file of it damaged
    rm -rf damaged
    cp -a "$2" damaged
    damage "damaged/$3" "$4"
    expect 0 mpi "$1" "${run[@]:1}" -o damaged "${@:5}"
    same clean damaged
}
acts='qt_???.s?.h5' # not those that a stage hands to the next one
grid 4 half acts/qt_003.s1.h5 985 --stages 2
grid 4 half acts/qt_004.s0.h5 500 --stages 2 --acts root --scratch scratch
check "the scratch folder is empty" [ -z "$(ls scratch)" ]

check "several shards" [ -s clean/safetensors/model-00002-of-00002.safetensors ]
grid 3 clean safetensors/model-00002-of-00002.safetensors gone --no-eval
check "it is said once" [ "$(grep -c 'safetensors is written again: model-00002-of-00002.safetensors is gone or has changed' err)" = 1 ]
poke_eval() { expect 3 mpi 3 eval --run "$1" --tokens eval.h5 --ctx 32 --windows 5 && one_error "$2"; }
damage damaged/ckpt/block_001.p0.s1.h5 500
poke_eval damaged 'block_001.p0.s1.h5: damaged or incomplete.*`blockq run` it again'

# A copy has other times: its outputs are read, and left alone.
rm -rf damaged
cp -a clean damaged
before=$(stat -c %i damaged/safetensors/* damaged/compressed-tensors/*)
for _ in 1 2; do
    expect 0 "${run[@]}" --no-eval -o damaged
    check "outputs that are whole are not written again" [ "$before" = "$(stat -c %i damaged/safetensors/* damaged/compressed-tensors/*)" ]
done

# A table that was emptied has its first line again.
: >damaged/run.csv
expect 0 "${run[@]}" --no-eval -o damaged
check "the table's first line" grep -q '^sweep,phase,block,' damaged/run.csv

# The stream that a stage hands to the next one inside a segment.
recipe inside.json model 4 ', "segments": 4'
expect 0 mpi 3 run inside.json --stages 3 -o handed_clean
BQ_FAULT=ckpt_rename:2@0 expect 1 mpi 3 run inside.json --stages 3 -o handed
check "a stage has handed it on" [ -s handed/acts/qt_002.p0.s0.h5 ]
for how in 985 empty; do
    rm -rf damaged
    cp -a handed damaged
    damage damaged/acts/qt_002.p0.s0.h5 $how
    expect 0 mpi 3 run inside.json --stages 3 -o damaged
    same handed_clean damaged
done
finish
