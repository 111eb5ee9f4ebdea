#!/usr/bin/env bash
# Smoothing passes before round to nearest: the same bytes on 1, 2 and 3 ranks, and a dense export that measures as the run
# did, so norms and biases that were changed are in it.
. "$(dirname "$0")/lib.sh"
micro llama_bias phi3_short

for model in llama_bias phi3_short; do
    recipe r.json "m_$model" 4
    for pass in smoothquant autosmoothquant awq; do
        keys=(--set "phases=[{\"inputs\":\"qt\",\"passes\":[{\"pass\":\"$pass\"},{\"pass\":\"rtn\"}]}]"
            --set bits.decoder.group=8 --set bits.decoder.symmetric=false)
        name=${model}_$pass
        expect 0 "$blockq" run r.json "${keys[@]}" -o "$name.1"
        ppl=$(sed -n "s/^result: .* $pass+rtn=\([0-9.]*\) .*/\1/p" out)
        for ranks in 2 3; do
            expect 0 "$mpiexec" -n "$ranks" "$blockq" run r.json "${keys[@]}" -o "$name.$ranks"
            same "$name.1" "$name.$ranks"
        done
        expect 0 "$blockq" eval --model "$name.1/safetensors" --tokens eval.h5 --ctx 32 --windows 5
        check "$name: the export measures $ppl: $(tail -n 1 out)" \
            awk -v want="$ppl" '/^perplexity:/ { split($2, x, "="); d = x[2] / want - 1; ok = want > 0 && d < 1e-5 && d > -1e-5 }
                END { exit !ok }' out
    done
done
finish
