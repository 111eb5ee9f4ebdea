#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# blockq sweep and --reference: the runs are those that `run` makes alone, on any ranks and groups, after stops and kills; what is known
# is not made again.
leaks=1
. "$(dirname "$0")/lib.sh"
micro qwen2

recipe ada.json m_qwen2 3 ', "segments": 2, "bits": {"decoder": {"bits": 4, "group": 8}}'
sed 's/"phases":.*/"phases": [{"inputs": "qt", "compute": "bf16", "passes": [{"pass": "gptq"}]}],/; s/}}$/}}, "evals": [{"eval": "perplexity", "tokens": "eval.h5", "ctx": 16}]/' ada.json >gptq.json
check "two recipes" grep -q evals gptq.json
vary=(--vary 'seed=0,3' --vary 'bits.decoder.bits=4,2')
mapfile -t names < <(printf '%s\n' {ada,gptq},seed={0,3},bits={4,2})

# every run alone
for name in "${names[@]}"; do
    IFS=, read -r base seed bits <<<"$name"
    expect 0 "$blockq" run "$base.json" --set "$seed" --set "bits.decoder.$bits" -o "alone/$name"
done
rm -r alone/*/acts/* # the FP stream of a sweep has another place

equal() { # DIR: its runs are those
    local name
    for name in "${names[@]}"; do
        same "alone/$name" "$1/$name"
        check "$1/$name: result.json" cmp "alone/$name/result.json" "$1/$name/result.json"
    done
}
evaluations() { grep -c "perplexity over" "$1"; }

expect 0 "$blockq" sweep ada.json gptq.json "${vary[@]}" -o one
equal one
check "the table: $(cat out)" [ "$(grep -c '^\(ada\|gptq\),seed=' out)" = 8 ]
check "a star for the first row: $(cat out)" [ "$(grep -A 1 '^run ' out | tail -n 1 | grep -c '\*$')" = 1 ]
check "the rows: $(cat one/sweep.csv)" awk -F, 'NR > 1 { good += $4 == 0 && $5 > 2 && $5 < 9 && $8 > 1 && $11 > 0 && $11 <= $10 } END { exit good != 8 }' one/sweep.csv
check "messages say of which run" grep -q '^bq: gptq,seed=3,bits=2: done in' err
check "one reference: $(ls one/reference.0)" [ "$(find one/reference.0 -name fp_000.h5 | wc -l)" = 1 ]
check "a page of them" [ "$(grep -c '<circle' one/sweep.html)" = 8 ]
cp out table

# again: nothing is made, the numbers are known
expect 0 "$blockq" sweep ada.json gptq.json "${vary[@]}" -o one
equal one
check "no block was made again" [ "$(cat one/*/run.log | grep -c 'block 2/2: .* s$')" = 8 ]
check "the same numbers" diff <(awk '{ print $1, $2, $3, $4, $5, $6 }' table) <(awk '{ print $1, $2, $3, $4, $5, $6 }' out)

# the model is evaluated once in a group: a run that knows takes no walk through its blocks
expect 0 "$blockq" run ada.json --reference ref -o first
same first alone/ada,seed=0,bits=4
before=$(stat -c %Y%s ref/*/evals.json)
expect 0 "$blockq" run gptq.json --reference ref -o second
check "the number of the model is the other run's" cmp <(grep -o '"fp": [0-9.]*' first/result.json | head -n 1) <(grep -o '"fp": [0-9.]*' second/result.json | head -n 1)
check "new numbers were kept" [ "$before" != "$(stat -c %Y%s ref/*/evals.json)" ]
# fp, rtn and result; of the second run its result, and fp, rtn and result of its other evaluation
check "seven numbers are kept" [ "$(grep -o '"[0-9a-f]\{16\}": \[' ref/*/evals.json | wc -l)" = 7 ]
# a damaged file is not believed
sed -i 's/[1-9]\.[0-9]/9.9/' ref/*/evals.json
expect 0 "$blockq" run gptq.json --reference ref -o third
same third second
check "evaluated again" cmp second/result.json third/result.json

# ranks and groups
for grid in '2 1' '2 2' '3 1' '4 2' '4 4'; do
    read -r ranks groups <<<"$grid"
    rm -rf other
    expect 0 mpi "$ranks" sweep ada.json gptq.json "${vary[@]}" --groups "$groups" -o other
    equal other
    check "$grid: as many references as groups" [ "$(find other -maxdepth 1 -name 'reference.*' | wc -l)" -le "$groups" ]
done
rm -rf other scratch
expect 0 mpi 2 sweep ada.json gptq.json "${vary[@]}" --groups 1 --stages 2 --acts root --scratch "$PWD/scratch" -o other
equal other
check "nothing is left in scratch" [ ! "$(ls scratch)" ]
expect 0 mpi 4 sweep ada.json gptq.json "${vary[@]}" -o chosen
check "groups are chosen: $(head -n 1 err)" grep -q '8 runs, 4 groups of 1 rank$' err

# stops and kills: the same command goes on, on other ranks, too
expect 75 mpi 2 sweep ada.json gptq.json "${vary[@]}" --groups 2 --stop-after-blocks 1 -o later
check "no table" [ ! -s out ]
for _ in 1 2 3; do
    BQ_FAULT=step_kill=30 mpi 2 sweep ada.json gptq.json "${vary[@]}" --groups 2 -o later >/dev/null 2>&1 || true
done
expect 0 mpi 3 sweep ada.json gptq.json "${vary[@]}" -o later
equal later

# one that is refused does not keep the others from their runs
expect 2 mpi 2 sweep ada.json gptq.json --vary bits.decoder.group=8,7 -o partly
check "two of four: $(cat out)" [ "$(grep -c 'failed with code 2' out)" = 2 ]
check "the others are done" [ -e partly/ada,group=8/result.json ]

# what is refused before anything is done
expect 2 "$blockq" sweep ada.json --vary seed= -o no && one_error 'must be KEY=VALUE,VALUE'
expect 2 "$blockq" sweep ada.json --vary seed -o no && one_error 'must be KEY=VALUE,VALUE'
expect 2 "$blockq" sweep ada.json x/ada.json -o no && one_error 'two runs would be named ada'
expect 2 "$blockq" sweep ada.json --vary seed=1,1 -o no && one_error 'two runs would be named'
expect 4 mpi 2 sweep ada.json --groups 3 -o no && one_error 'cannot be cut into so many equal groups'
check "nothing was made" [ ! -e no ]
ln -s "$PWD" link
expect 2 "$blockq" sweep ada.json -o link && one_error 'link'
finish
