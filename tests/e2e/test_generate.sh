#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# blockq generate: each token is the most likely one, by what `eval` says; the same tokens on any number of ranks; of models of all kinds
# and of runs; drawn tokens; plans; refusals.
. "$(dirname "$0")/lib.sh"
export OMP_NUM_THREADS=1
micro llama_default
model=m_llama_default
prompts=(--prompt-tokens "5,6,7" --prompt-tokens 44 --prompt-tokens "1,2,3,4,5,6,7,8,9,10,11")

# added FILE NAME N: the tokens that weights NAME added to prompt N
added() { sed -n "s/^$2 $3: //p" "$1"; }

# ---- each token is the most likely one ----
expect 0 "$blockq" generate $model "${prompts[@]}" -n 9
cp out one
check "three lines: $(cat one)" [ "$(grep -cE '^model [012]: ([0-9]+,){8}[0-9]+$' one)" = 3 ]
# items FILE NAME: for each added token a question whose choices are that token and 25 others
items() {
    for i in 0 1 2; do echo "${prompts[2 * i + 1]} $(added "$1" "$2" $i)"; done | LC_ALL=C awk '
        BEGIN { printf "{\"vocab\": 97, \"tokenizer\": \"\", \"items\": [" }
        {
            text = $1; n = split($2, new, ",")
            for (k = 1; k <= n; k++) {
                for (part = 0; part < 4; part++) { # all other ids, in four questions
                    printf "%s\n{\"context\": [%s], \"choices\": [[%d]", some++ ? "," : "", text, new[k]
                    for (id = part * 25; id < part * 25 + 25 && id < 97; id++) if (id != new[k]) printf ", [%d]", id
                    printf "], \"answer\": 0}"
                }
                text = text "," new[k]
            }
        }
        END { print "]}" }'
}
items one model >q.json
expect 0 "$blockq" eval --model $model --eval choice:q.json
check "each token is the most likely one: $(cat out)" grep -q '^choice: model=1.000000 .*items=108 ' out

# ---- the same on any number of ranks; a run has both its weights ----
recipe r.json $model 4
expect 0 "$blockq" run r.json -o run
for ranks in 1 2 3 4; do
    expect 0 mpi $ranks generate $model "${prompts[@]}" -n 9
    check "$ranks ranks: $(cat out)" cmp one out
    expect 0 mpi $ranks generate run "${prompts[@]}" -n 9
    cp out run_$ranks
    check "$ranks ranks, a run: $(cat out)" cmp run_1 run_$ranks
done
check "of the original: $(cat run_1)" cmp <(sed s/model/fp/ one) <(head -n 3 run_1)
check "of the result: $(cat run_1)" [ "$(grep -c '^adascale [012]: ' run_1)" = 3 ]
items run_1 adascale >q.json
expect 0 "$blockq" eval --run run --result-only --eval choice:q.json
check "of the result, the most likely ones: $(cat out)" grep -q '^choice: adascale=1.0000 .*items=108 ' out
expect 0 "$blockq" generate run/safetensors "${prompts[@]}" -n 9
check "the export writes as the result: $(cat out)" cmp <(sed s/model/adascale/ out) <(tail -n 3 run_1)
expect 0 "$blockq" generate run "${prompts[@]}" -n 9 --result-only
check "the result alone" cmp out <(tail -n 3 run_1)

# ---- prompts from a file ----
expect 0 mpi 2 generate $model --tokens eval.h5 --ctx 5 --windows 3 --offset 10 -n 4
cp out windows
ids() { tail -c +$(($1 + 1)) text2 | head -c 5 | od -An -tu1 | tr -s ' ' ',' | sed 's/^,//'; }
expect 0 "$blockq" generate $model --prompt-tokens "$(ids 10)" --prompt-tokens "$(ids 15)" --prompt-tokens "$(ids 20)" -n 4
check "windows of a file are prompts: $(cat out windows)" cmp out windows
expect 3 "$blockq" generate $model --tokens eval.h5 --ctx 300 --windows 3
one_error 'eval.h5: 3 windows of 300 tokens from token 0 on are wanted, 2 are there'

# ---- drawn ----
draw=(--temperature 1.5 --seed 7)
expect 0 mpi 1 generate $model "${prompts[@]}" "${draw[@]}" -n 9
cp out drawn
check "drawn tokens are others" eval '! cmp -s drawn one'
expect 0 mpi 3 generate $model "${prompts[@]}" "${draw[@]}" -n 9
check "a seed draws the same on three ranks: $(cat out)" cmp drawn out
expect 0 "$blockq" generate $model "${prompts[@]}" --temperature 1.5 --seed 8 -n 9
check "another seed draws others" eval '! cmp -s drawn out'
expect 0 "$blockq" generate $model "${prompts[@]}" "${draw[@]}" --top-k 1 -n 9
check "of one token there is no choice: $(cat out)" cmp one out
expect 0 "$blockq" generate $model "${prompts[@]}" --temperature 1e-5 -n 9
check "nor where it is cold: $(cat out)" cmp one out

# ---- refusals ----
expect 2 mpi 2 generate $model --prompt-tokens 5,97
one_error 'prompt-tokens: 97 is no token: the model.s vocabulary has 97'
for bad in 5,,6 "5," ",5" 5,x -1 99999999999999999999 5.5; do
    expect 2 "$blockq" generate $model --prompt-tokens=$bad
    one_error 'prompt-tokens'
done
expect 3 "$blockq" generate nowhere --prompt-tokens 5
one_error nowhere
expect 2 mpi 2 generate $model --prompt-tokens 5 -n 20000 --memory 70M
one_error 'the evaluation needs [0-9]* MB, 73 MB may be used: take shorter texts'
BQ_FAULT=window_nan:3 expect 3 mpi 2 generate $model "${prompts[@]}"
one_error 'm_llama_default: model: a logit after token [0-9]* of prompt [0-9] is not finite'
rm run/ckpt/block_001.p0.s0.h5
expect 3 mpi 2 generate run --prompt-tokens 5
one_error 'run is not finished'
finish
