#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs of models with experts: passes on cores and experts, ranks, stops, damage, too few tokens; and evaluation and export of them.
. "$(dirname "$0")/lib.sh"
micro mixtral qwen2_moe qwen3_moe glm4_moe gpt_oss deepseek_v3

# run_of NAME MODEL PHASES EXPERTS [MORE KEYS]: on one rank and on others, with the same bytes; its export is worth what it says.
run_of() {
    cat >"$1.json" <<TEXT
{"model": "m_$2", "calibration": {"tokens": "cal.h5", "samples": 5, "length": 40}, "phases": [$3], "experts": {$4},
 "outputs": [{"format": "safetensors"}, {"format": "compressed-tensors"}],
 "eval": {"tokens": "eval.h5", "ctx": 48, "windows": 4}${5-}}
TEXT
    expect 0 "$blockq" run "$1.json" -o "$1"
    cp err "$1.err"
    local n
    for n in ${ranks-2 4}; do
        expect 0 mpi "$n" run "$1.json" -o "$1.$n"
        rm -rf "$1/acts" "$1.$n/acts" # more stages have more files
        same "$1" "$1.$n"
    done
    worth "$1" 48 4
}
not() { ! "$@"; }
gptq='{"inputs":"qt","passes":[{"pass":"gptq"}]}'
trained='{"pass":"adascale","iterations":4,"batch":2}'

run_of gptq mixtral "$gptq" '"least": 100'
check "blend: the log says how many tokens experts get" grep -q 'block 1/2: an expert gets [0-9]* to [0-9]* tokens, .* of 4 have too few (blend)' gptq.err
run_of all_tokens qwen3_moe "$gptq" '"least": 120, "starved": "all_tokens"'
run_of starved glm4_moe '{"inputs":"mix","passes":[{"pass":"smoothquant","entries":"all"},{"pass":"gptq","sequential":true,"qep":0.5},{"pass":"adascale","iterations":4,"batch":1}]}' \
    '"least": 60, "starved": "rtn"'
check "smoothing says what it leaves" grep -q 'the input of experts keeps its scale' starved.err
run_of capped qwen2_moe '{"inputs":"fp","passes":[{"pass":"awq"},{"pass":"seqmse"}]}' '"most": 50'
ranks=3 run_of phases qwen2_moe "$gptq,{\"inputs\":\"qt\",\"passes\":[{\"pass\":\"adascale\",\"iterations\":4,\"batch\":5}]}" '"least": 90'
run_of plain glm4_moe '{"passes":[{"pass":"hqq"}]}' ''
run_of latent deepseek_v3 '{"inputs":"mix","passes":[{"pass":"smoothquant"},{"pass":"gptq","sequential":true},{"pass":"adascale","iterations":4,"batch":5}]}' \
    '"least": 80' ', "transforms": [{"transform":"rotate","r1":"hadamard"}]'
run_of rotated qwen3_moe "$gptq" '' ', "transforms": [{"transform":"rotate","r1":"orthogonal","r2":"orthogonal"}]'
for policy in blend all_tokens rtn; do
    expect 0 "$blockq" run gptq.json --set experts.least=200 --set experts.starved=$policy -o "gptq.$policy"
done
for policy in all_tokens rtn; do
    check "$policy is another result than blend" not cmp -s gptq.{blend,$policy}/ckpt/block_000.p0.s0.e000.h5
done

# all experts in one tensor: safetensors has that again, other formats are refused by name
sed 's/m_glm4_moe/m_gpt_oss/' starved.json >stacked.json
plain='outputs=[{"format": "safetensors", "shard_bytes": 100000}]'
expect 3 "$blockq" run stacked.json -o stacked
one_error 'export: gpt_oss keeps all experts of a block in one tensor, and compressed-tensors is not'
expect 0 "$blockq" run stacked.json --set "$plain" -o stacked
expect 0 mpi 3 run stacked.json --set "$plain" -o stacked.3
rm -r stacked*/acts
same stacked stacked.3
worth stacked 48 4
expect 3 "$blockq" export --run stacked --format gptq -o exported

expect 2 "$blockq" run gptq.json --set 'phases=[{"passes":[{"pass":"smoothquant","fuse":false},{"pass":"rtn"}]}]' -o refused
one_error 'smoothquant with fuse false'

expect 0 "$blockq" inspect m_deepseek_v3
check "inspect tells of experts: $(cat out)" grep -q '8 experts in 1 block, of which a token takes 3' out
check "inspect lists one of them" [ "$(grep -c 'mlp.experts' out)" = 3 ]
expect 0 "$blockq" inspect latent/ckpt/block_001.p0.s0.e007.h5
check "inspect shows an expert's file" grep -q 'mlp.experts.7.down_proj' out
expect 0 "$blockq" status latent
check "status counts blocks: $(cat out)" grep -q '2 of 2 blocks' out

# segments and sweeps, on stages
cat >sweeps.json <<TEXT
{"model": "m_mixtral", "calibration": {"tokens": "cal.h5", "samples": 4, "length": 24}, "segments": 2, "sweeps": 2,
 "phases": [{"inputs": "qt", "passes": [$trained]}], "eval": {"tokens": "eval.h5", "ctx": 48, "windows": 4}}
TEXT
expect 0 "$blockq" run sweeps.json -o sweeps
expect 0 mpi 4 run sweeps.json -o sweeps.4 --stages 2
rm -r sweeps/acts sweeps.4/acts
same sweeps sweeps.4

# stopped, and killed inside a block: what experts have is kept
expect 75 "$blockq" run starved.json -o stopped --stop-after-blocks 1
expect 0 mpi 3 run starved.json -o stopped
rm -rf stopped/acts
same starved stopped
for at in 1 2 4 6; do
    BQ_FAULT="ckpt_rename:$at" expect 1 "$blockq" run gptq.json -o "killed.$at"
    expect 0 mpi 2 run gptq.json -o "killed.$at"
    rm -rf "killed.$at/acts"
    same gptq "killed.$at"
done

# an expert's file is gone, or damaged: it alone is made again
rm gptq.2/ckpt/block_000.p0.s0.e002.h5
damage gptq.2/ckpt/block_001.p0.s0.e001.h5 3000
expect 3 "$blockq" eval --run gptq.2 --tokens eval.h5 --ctx 48
one_error 'block_00[01].p0.s0.e00[12].h5'
expect 0 "$blockq" run gptq.json -o gptq.2
rm -rf gptq.2/acts
same gptq gptq.2
rm plain.2/ckpt/block_001.p0.s0.e002.h5 # where no pass reads samples, too; and killed while it is made
BQ_FAULT="ckpt_rename:1" expect 1 "$blockq" run plain.json -o plain.2
one_error "rename of 'plain.2/ckpt/block_001.p0.s0.e002.h5' failed" # not of the core, which is there
expect 0 "$blockq" run plain.json -o plain.2
rm -rf plain.2/acts
same plain plain.2

# a file of another expert, or of another block: found, and made again
for from in 000.p0.s0.e001 001.p0.s0.e002; do
    cp "gptq.2/ckpt/block_$from.h5" gptq.2/ckpt/block_000.p0.s0.e002.h5
    expect 3 "$blockq" eval --run gptq.2 --tokens eval.h5 --ctx 48
    one_error "block_000.p0.s0.e002.h5: it is of block .*, expert"
    expect 0 "$blockq" run gptq.json -o gptq.2
    rm -rf gptq.2/acts
    same gptq gptq.2
done
for to in .e000 .core; do # before a run goes on
    BQ_FAULT="ckpt_rename:8" expect 1 "$blockq" run gptq.json -o "swapped$to"
    cp "gptq/ckpt/block_000.p0.s0${to/.core/}.h5" "swapped$to/ckpt/block_001.p0.s0$to.h5"
    expect 0 "$blockq" run gptq.json -o "swapped$to"
    check "a file of block 1" grep -q "block_001.p0.s0$to.h5' is made again: it is of block 0" err
    rm -rf "swapped$to/acts"
    same gptq "swapped$to"
done

# tokens that no pass reads, on two stages
for n in 1 2; do
    expect 0 mpi "$n" run plain.json --set phases.0.inputs=fp --set outputs=[] -o "unread.$n" --no-eval
done
same unread.1 unread.2

# an expert without samples gets the passes that need none
grouped=', "bits": {"decoder": {"bits": 4, "group": 16}, "linears": {"w2": {"group": -1}}}'
ranks=3 run_of chained mixtral '{"inputs":"fp","passes":[{"pass":"gptq"},{"pass":"lpbq"}]}' '"least": 999, "starved": "rtn"' "$grouped"
run_of apart mixtral '{"inputs":"fp","passes":[{"pass":"gptq"}]},{"passes":[{"pass":"lpbq"}]}' '"least": 999, "starved": "rtn"' "$grouped"
check "lpbq on experts that are rounded to nearest" cmp {chained,apart}/safetensors/model.safetensors

# an expert of another rank than 0 that cannot be trained is named
BQ_FAULT=loss_nan:5@1 expect 0 mpi 2 run starved.json --set experts.least=0 -o nan
check "an odd expert" grep -q 'r1 warning: block 2, expert [13]: the loss became NaN' err

# in scratch files: the same bytes
sed "s/\"samples\": 5/\"samples\": 60/; s/\"inputs\":\"qt\",\"passes\":\[/\"inputs\":\"mix\",\"passes\":[$trained,/" gptq.json >more.json
memory=$("$blockq" plan more.json 2>/dev/null | awk '$1 == "total" { print int(($2 - 1.5) * 1e6) }')
expect 0 "$blockq" run more.json -o more
expect 0 "$blockq" run more.json -o more.scratch --scratch . --memory "$memory"
check "streams are in files" grep -q 'streams in files' err
same more more.scratch
expect 0 "$blockq" eval --model m_mixtral --tokens eval.h5 --ctx 48 --windows 4 --rtn 4
cp out one
expect 0 mpi 3 eval --model m_mixtral --tokens eval.h5 --ctx 48 --windows 4 --rtn 4
check "evaluation on 3 ranks" cmp -s one out
finish
