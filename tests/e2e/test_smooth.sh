#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Smoothing passes before round to nearest: the same bytes on 1, 2 and 3 ranks, and a dense export that measures as the run
# did, so norms and biases that were changed are in it.  AMD Quark's own file of Auto-SmoothQuant for Llama runs as it is.
. "$(dirname "$0")/lib.sh"
micro llama_bias phi3_short
runs=0

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

# The map that AMD Quark documents, and the keys it stands for.
cat >quark.json <<'TEXT'
{
  "name": "autosmoothquant",
  "model_decoder_layers": "model.layers",
  "compute_scale_loss": "MAE",
  "scaling_layers": [
    { "prev_op": "input_layernorm",
      "layers": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
      "inp": "self_attn.q_proj", "module2inspect": "self_attn" },
    { "prev_op": "self_attn.v_proj", "layers": ["self_attn.o_proj"], "inp": "self_attn.o_proj" },
    { "prev_op": "post_attention_layernorm",
      "layers": ["mlp.gate_proj", "mlp.up_proj"],
      "inp": "mlp.gate_proj", "module2inspect": "mlp" },
    { "prev_op": "mlp.up_proj", "layers": ["mlp.down_proj"], "inp": "mlp.down_proj" }
  ]
}
TEXT
check "configs/quark/llama.json is the documented one" cmp quark.json "$configs/quark/llama.json"
cp quark.json before.json
for how in '"map": "quark.json"' '"loss": "mae", "qkv": "module", "o": "self", "gate_up": "module", "down": "self"' '"qkv": "off"'; do
    recipe q.json m_llama_bias 4
    expect 0 "$blockq" run q.json --set "phases=[{\"inputs\":\"fp\",\"passes\":[{\"pass\":\"autosmoothquant\", $how},{\"pass\":\"rtn\"}]}]" \
        --set bits.decoder.group=8 -o "quark_$((++runs))"
    check "run $runs: a result" [ -n "$(result)" ]
done
same quark_1 quark_2
differ quark_1 quark_3
check "the file was only read" cmp quark.json before.json
expect 0 mpi 3 run q.json --set 'phases=[{"inputs":"fp","passes":[{"pass":"autosmoothquant","map":"quark.json"},{"pass":"rtn"}]}]' \
    --set bits.decoder.group=8 -o quark_ranks
same quark_1 quark_ranks

# Inputs rounded to 8 bits while scales are searched: another choice, the same on any number of ranks.
for pass in autosmoothquant awq; do
    keys=(--set "phases=[{\"inputs\":\"fp\",\"passes\":[{\"pass\":\"$pass\",\"activations\":8},{\"pass\":\"rtn\"}]}]" --set bits.decoder.bits=8)
    expect 0 "$blockq" run q.json "${keys[@]}" -o "a8_$pass"
    expect 0 mpi 3 run q.json "${keys[@]}" -o "a8_$pass.3"
    same "a8_$pass" "a8_$pass.3"
    expect 0 "$blockq" run q.json "${keys[@]/8\}/16\}}" -o "a16_$pass"
    differ "a8_$pass" "a16_$pass"
done
finish
