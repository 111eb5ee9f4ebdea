#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Multiple choice: the same numbers on any number of ranks, in a recipe, of a run and of a model; plans that hold; what its
# file may not be.
. "$(dirname "$0")/lib.sh"
export OMP_NUM_THREADS=1
micro llama_default
choice='"eval": "choice", "items"'

# questions FILE COUNT LONGEST [VOCABULARY [SUBJECTS]]: contexts and choices of all lengths up to LONGEST tokens together
questions() {
    LC_ALL=C awk -v count="$2" -v longest="$3" -v vocab="${4-97}" -v subjects="${5-}" '
        function below(n) { x = (x * 1103 + 12345) % 65521; return x % n }
        function row(n, value, text) { for (text = value; n > 1; n--) text = text ", " value; return "[" text "]" }
        function ids(n, text) { for (text = below(97); n > 1; n--) text = text ", " below(97); return "[" text "]" }
        BEGIN {
            x = 11
            printf "{\"vocab\": %d, \"tokenizer\": \"\", \"items\": [", vocab
            for (i = 0; i < count; i++) {
                given = i ? 1 + below(longest - 1) : longest - 2
                choices = 2 + below(4)
                printf "%s\n{\"context\": %s, \"choices\": [", i ? "," : "", ids(given)
                for (c = 0; c < choices; c++) printf "%s%s", c ? ", " : "", ids(i ? 1 + below(longest - given) : 2)
                printf "], \"answer\": %d", below(choices)
                if (subjects) {
                    printf ", \"subject\": \"%s\"", i % 2 ? "a \\\"b\\\"" : "law"
                    printf ", \"characters\": %s, \"bytes\": %s", row(choices, 3), "[40, " substr(row(choices - 1, 1), 2)
                }
                printf "}"
            }
            print "]}"
        }' >"$1"
}
questions q.json 17 20
recipe plain.json m_llama_default 4
recipe r.json m_llama_default 4 ", \"evals\": [{$choice: \"q.json\"}, {$choice: \"q.json\", \"normalize\": \"tokens\", \"limit\": 9},
    {\"eval\": \"perplexity\", \"tokens\": \"cal.h5\", \"ctx\": 16, \"windows\": 3}]"

# values FILE N: the numbers of evaluation N of a result.json
values() { sed -E 's/.*"evals": \[//; s/\}\]\}$//; s/\}, \{/\n/g' "$1" | sed -n "$2p" | grep -oE '"(fp|rtn|adascale)": [^,]*' | tr -d '" ' | tr '\n:' ' ='; }

# ---- the same on any number of ranks; nothing else changes ----
expect 0 "$blockq" run plain.json -o plain
said=$(result)
for ranks in 1 2 3; do
    expect 0 mpi $ranks run r.json -o r$ranks
    check "$ranks ranks: result line $(result), not $said" [ "$(result)" = "$said" ]
    check "$ranks ranks: result.json" cmp r1/result.json r$ranks/result.json
done
check "the first part of result.json is as ever" cmp <(sed 's/, "evals.*/}/' r1/result.json) plain/result.json
check "a recipe without evals has no such key" eval '! grep -q evals plain/recipe.json'
check "three evaluations: $(cat r1/result.json)" grep -qE '"evals": \[\{"eval": "choice", .*"ctx": 512, "limit": 0, "normalize": "none", "fp": 0[.0-9]*, "fp_items": [0-9]+, .*"adascale_items": [0-9]+, "adascale_standard_error": 0[.0-9]*\}, \{.*"limit": 9, "normalize": "tokens", .*\}, \{"eval": "perplexity", .*"fp": [0-9.]+, "rtn": [0-9.]+, "adascale": [0-9.]+\}\]\}$' r1/result.json
check "the count: $(cat r1/result.json)" awk -v share="$(values r1/result.json 1 | grep -o 'fp=[0-9.]*' | cut -d= -f2)" \
    -v count="$(sed -E 's/.*"limit": 0[^}]*"fp_items": ([0-9]+).*/\1/' r1/result.json)" 'BEGIN { exit !((share * 17 - count)^2 < 1e-12) }'
check "the log: $(grep accuracy r1/run.log)" [ "$(grep -cE 'q.json: accuracy over (17|9) items: fp=0.[0-9]{4} rtn=0.[0-9]{4} adascale=0.[0-9]{4} fp_standard_error=0.[0-9]{4} rtn_standard_error=0.[0-9]{4} adascale_standard_error=0.[0-9]{4}$' r1/run.log)" = 2 ]
expect 0 "$blockq" run plain.json --set "evals=[{$choice: \"q.json\"}]" -o plain # may change: nothing is made again
check "no block is made again" [ "$(grep -c 'block 1/2: ' plain/run.log)" = 1 ]
check "the same number" [ "$(values plain/result.json 1)" = "$(values r1/result.json 1)" ]

# ---- of a run, of a model ----
for ranks in 1 2 3; do
    expect 0 mpi $ranks eval --run r1 --eval choice:q.json --eval choice:q.json,normalize=tokens,limit=9
    check "eval --run says what the run said: $(cat out)" awk -v a="$(values r1/result.json 1)" -v b="$(values r1/result.json 2)" '
        function near(said, line, have, i, j, x, y) { # "fp=0.5 rtn=0.4 adascale=0.5" with four digits
            split(said, x, " "); split(line, y, " ")
            for (i = 1; i <= 3; i++) { split(x[i], have, "="); j = y[i + 1]; if (j != sprintf("%s=%.4f", have[1], have[2])) bad = 1 } }
        NR == 1 { near(a, $0) } NR == 2 { near(b, $0) }
        NR < 3 && !/^choice: fp=.* items=(17|9) ctx=20$/ { bad = 1 } NR == 3 && !/^result: adascale out=r1$/ { bad = 1 }
        END { exit bad || NR != 3 }' out
    expect 0 mpi $ranks eval --model m_llama_default --rtn 4 --tokens eval.h5 --ctx 32 --eval choice:q.json --eval choice:q.json
    cp out model_$ranks
    check "eval --model: $(cat out)" cmp model_1 model_$ranks
done
check "three lines: $(cat model_1)" awk 'NR == 1 { bad += !/^perplexity: model=/ } NR > 1 { bad += !/^choice: model=0.[0-9]* rtn4=0.[0-9]* model_standard_error=0.[0-9]* rtn4_standard_error=0.[0-9]* items=17 ctx=20$/ }
    END { exit bad || NR != 3 }' model_1
expect 0 "$blockq" eval --model r1/safetensors --eval choice:q.json
check "the export's number is the result's: $(cat out)" grep -q "model=$(values r1/result.json 1 | sed 's/.*adascale=//; s/ *$//' | cut -c 1-7)" out
expect 0 "$blockq" eval --run r1 --result-only --eval choice:q.json
check "the result alone: $(cat out)" grep -qE '^choice: adascale=0.[0-9]{4} adascale_standard_error=0.[0-9]{4} items=17' out

rtn='phases=[{"passes":[{"pass":"rtn"}]}]'

# ---- subjects and lengths ----
questions s.json 17 20 97 1
for ranks in 1 3; do
    expect 0 mpi $ranks run plain.json --set "$rtn" --set "evals=[{$choice: \"s.json\", \"normalize\": \"bytes\"}]" -o s$ranks
done
check "3 ranks: subjects" cmp s1/result.json s3/result.json
check "two subjects: $(cat s1/result.json)" grep -qE '"rtn_macro": 0[.0-9]*, "rtn_macro_standard_error": 0[.0-9]*, "parts": \{"law": \{"items": 9, "fp": [01][.0-9]*, "rtn": [01][.0-9]*\}, "a \\"b\\"": \{"items": 8, ' s1/result.json
check "the log: $(grep law s1/run.log)" grep -qE 's.json: law, 9 items: fp=[01].[0-9]{4} rtn=[01].[0-9]{4}$' s1/run.log
expect 0 "$blockq" eval --model m_llama_default --eval choice:s.json,normalize=bytes
check "the shares add up: $(cat out)" awk '
    function value(name, i, x) { for (i = 1; i <= NF; i++) { split($i, x, "="); if (x[1] == name) return x[2] } return "none" }
    function near(a, b) { return (a - b)^2 < 1e-9 }
    NR == 1 { all = value("model"); macro = value("model_macro"); bad += !near(value("model_standard_error"), sqrt(all * (1 - all) / 16)) }
    NR == 2 { bad += !/^choice, law: /; p = value("model"); n = value("items"); bad += n != 9 }
    NR == 3 { bad += !/^choice, a "b": /; q = value("model"); m = value("items"); bad += m != 8 }
    END { exit bad || NR != 3 || !near(all * 17, p * n + q * m) || !near(macro, (p + q) / 2) }' out
cp out by_bytes
expect 0 "$blockq" eval --model m_llama_default --eval choice:s.json,normalize=characters
check "other lengths, other answers" eval '! cmp -s out by_bytes'

# ---- without perplexity, without any ----
expect 0 "$blockq" run r.json --set "$rtn" --set eval.tokens= -o alone
check "choices alone: $(cat alone/result.json)" grep -qE '^\{"evals": \[\{"eval": "choice".*"rtn_items": [0-9]+, "rtn_standard_error": 0[.0-9]*\}, ' alone/result.json
check "the result line: $(cat out)" grep -q '^result: rtn out=alone$' out
expect 0 "$blockq" run r.json --set "$rtn" --no-eval -o none
check "no evaluation, no result" [ ! -e none/result.json ]
expect 75 "$blockq" run r.json --stop-after-blocks 1 -o stopped
expect 0 mpi 2 run r.json -o stopped
check "the same after a stop" cmp r1/result.json stopped/result.json

# ---- values that are NaN ----
BQ_FAULT=window_nan:6 expect 3 mpi 2 eval --model m_llama_default --eval choice:q.json
one_error 'm_llama_default: the accuracy of the model is nan: the log-likelihood of choice [0-9] of item [0-9]* is nan: its weights are'
BQ_FAULT=window_nan:70 expect 0 "$blockq" run r.json --set "$rtn" --set eval.tokens= -o odd
check "a warning: $(cat err)" grep -qE 'warning: rtn: the accuracy is nan: the log-likelihood of choice [0-9] of item [0-9]+ is nan' err
check "JSON: $(cat odd/result.json)" grep -qE '"normalize": "none", "fp": 0[.0-9]*, "fp_items": [0-9]+, "fp_standard_error": 0[.0-9]*, "rtn": null, "rtn_standard_error": null\}' odd/result.json

# ---- plans ----
planned() { awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next } { bad += $at["peak_bytes"] > $at["planned_bytes"] } END { exit bad || NR < 2 }' "$1/run.csv"; }
questions long.json 3 3000
if ! grep -q __asan_init "$blockq"; then
    expect 0 mpi 2 run r.json --set "$rtn" --set "evals=[{$choice: \"long.json\", \"ctx\": 4000}]" -o long
    check "peak beyond the plan: $(tail -n 3 long/run.csv)" planned long
fi
expect 2 "$blockq" eval --model m_llama_default --eval choice:long.json,ctx=4000 --memory 60M
one_error 'the evaluation needs [0-9]* MB, 63 MB may be used'
expect 2 "$blockq" run r.json --set "evals=[{$choice: \"long.json\", \"ctx\": 4000}]" --memory 60M -o small
one_error 'the run needs [0-9]* MB, 63 MB may be used'
check "refused before work" [ ! -e small ]

# ---- refusals ----
refused() { # CODE TEXT EVALUATION: on the command line, on two ranks
    expect "$1" mpi 2 eval --model m_llama_default --eval "$3"
    one_error "$2"
}
refused 2 '--eval choice: must be KIND:FILE' choice
refused 2 'evals.0.items: is ""' choice:
refused 2 'evals.0.eval: is "trivia", must be "perplexity" or "choice"' trivia:q.json
refused 2 'evals.0.limits: unknown key; did you mean .limit.' choice:q.json,limits=3
refused 2 'evals.0.limit: is -1' choice:q.json,limit=-1
refused 2 'evals.0.normalize: is "words", must be "none", "tokens", "characters" or "bytes"' choice:q.json,normalize=words
refused 3 'q.json: items.0.bytes: is missing: write the file by tools/choices.py' choice:q.json,normalize=bytes
refused 2 'must be KIND:FILE or KIND:FILE,KEY=VALUE' choice:q.json,limit
refused 3 'q.json: items: has 17 items, limit is 18' choice:q.json,limit=18
refused 3 'q.json: items.0.choices.0: has 20 tokens with its context, ctx is 19' choice:q.json,ctx=19
refused 3 'nowhere.json' choice:nowhere.json
refused 3 'eval.h5' choice:eval.h5
questions other.json 2 20 500
refused 3 'other.json was made by a tokenizer of 500 ids' choice:other.json
sed "s/\"tokenizer\": \"\"/\"tokenizer\": \"$(printf '%064d' 7)\"/" q.json >hashed.json
expect 3 "$blockq" run r.json --set "evals=[{$choice: \"hashed.json\"}]" -o hashed
one_error 'calibrate and evaluate with one tokenizer'
expect 2 "$blockq" run r.json --set 'evals=[{"items": "q.json"}]' -o kind
one_error 'evals.0.eval: is missing'
expect 2 "$blockq" eval --model m_llama_default --eval choice:q.json --eval choice:q.json --eval choice:q.json --eval choice:q.json --eval choice:q.json
check "five are too many: $(cat err)" grep -q 'more than 4 --eval' err

# ---- damage: cut short, or with another byte: refused in one line, or a number ----
bytes=$(wc -c <q.json)
for ((i = 0; i < $(more 25 400); i++)); do
    at=$((i * 7919 % bytes))
    cp q.json bad.json
    if ((i % 5 == 0)); then
        head -c $at q.json >bad.json
    else
        printf '%b' "\\$(printf '%03o' $((i * 37 % 256)))" | dd of=bad.json bs=1 seek=$at conv=notrunc status=none
    fi
    code=0
    "$blockq" eval --model m_llama_default --eval choice:bad.json >out 2>err </dev/null || code=$?
    if ((code == 0)); then
        check "damage $i: $(cat out)" grep -qE '^choice: model=[01]\.' out
    elif ((code == 3)); then
        one_error 'bad.json'
    else bad "damage $i: code $code: $(cat err)"; fi
done
finish
