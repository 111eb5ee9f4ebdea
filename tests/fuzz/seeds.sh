#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# seeds.sh OUT - small valid and nearly valid inputs, a folder a fuzzer: OUT/<name of the fuzzer>/*.
set -eu
out=$1

# A safetensors file: length of the header (below 65536), header, data.
tensors() {
    n=$(printf '%s' "$2" | wc -c)
    printf "\\$(printf %03o $((n % 256)))\\$(printf %03o $((n / 256)))\\0\\0\\0\\0\\0\\0%s" "$2" > "$1"
    printf '%s' "$3" >> "$1"
}

d=$out/fuzz_safetensors
mkdir -p "$d"
tensors "$d/empty" '{}' ''
tensors "$d/one" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' 0123
tensors "$d/two" '{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[4,12]},"a":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}' 0123456789ab
tensors "$d/zero" '{"z":{"dtype":"F16","shape":[0,3],"data_offsets":[0,0]},"y":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}   ' 0
tensors "$d/hole" '{"a":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}}' 01
tensors "$d/large" '{"a":{"dtype":"I64","shape":[4294967296,4294967296],"data_offsets":[0,18446744073709551615]}}' 01

d=$out/fuzz_stacked
mkdir -p "$d"
experts=model.layers.0.mlp.experts.
tensors "$d/floats" "{\"${experts}gate_up_proj\":{\"dtype\":\"BF16\",\"shape\":[2,1,2],\"data_offsets\":[0,8]},\"${experts}down_proj_bias\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[8,16]}}" 0123456789abcdef
tensors "$d/blocks" "{\"${experts}gate_up_proj_blocks\":{\"dtype\":\"U8\",\"shape\":[1,2,1,16],\"data_offsets\":[0,32]},\"${experts}gate_up_proj_scales\":{\"dtype\":\"U8\",\"shape\":[1,2,1],\"data_offsets\":[32,34]}}" 0123456789abcdef0123456789ABCDEFyz
tensors "$d/down" "{\"${experts}down_proj_blocks\":{\"dtype\":\"U8\",\"shape\":[1,1,2,16],\"data_offsets\":[0,32]},\"${experts}down_proj_scales\":{\"dtype\":\"U8\",\"shape\":[1,1,2],\"data_offsets\":[32,34]},\"x\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[34,35]}}" 0123456789abcdef0123456789ABCDEFyz.

d=$out/fuzz_packed
mkdir -p "$d"
packed() { # FILE CONFIG HEADER DATA: the byte that chooses config.json first, in octal
    tensors "$1.rest" "$3" "$4"
    { printf '%b' "\\0$2" && cat "$1.rest"; } > "$1"
    rm "$1.rest"
}
packed "$d/gptq" 00 '{"a.qweight":{"dtype":"I32","shape":[1,2],"data_offsets":[0,8]},"a.qzeros":{"dtype":"I32","shape":[1,1],"data_offsets":[8,12]},"a.scales":{"dtype":"F16","shape":[1,2],"data_offsets":[12,16]}}' 0123456789abcdef
packed "$d/v2" 01 '{"a.qweight":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]},"a.qzeros":{"dtype":"I32","shape":[2,1],"data_offsets":[4,12]},"a.scales":{"dtype":"BF16","shape":[2,1],"data_offsets":[12,16]},"x":{"dtype":"U8","shape":[0],"data_offsets":[16,16]}}' 0123456789abcdef
packed "$d/ct" 02 '{"a.weight_packed":{"dtype":"I32","shape":[1,1],"data_offsets":[16,20]},"a.weight_scale":{"dtype":"F32","shape":[1,1],"data_offsets":[20,24]},"a.weight_shape":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}' ''
printf '\1\0\0\0\0\0\0\0\10\0\0\0\0\0\0\0abcdefgh' >> "$d/ct"

part() { # NAME DTYPE SHAPE FROM TO
    printf '"a.%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}' "$@"
}
packed "$d/awq" 03 "{$(part qweight I32 2,1 0 8),$(part qzeros I32 1,1 8 12),$(part scales F16 1,8 12 28)}" 0123456789abcdef0123456789ab
packed "$d/gptq3" 04 "{$(part qweight I32 3,1 0 12),$(part qzeros I32 2,1 12 20),$(part scales F16 2,1 20 24),$(part g_idx I32 32 24 152)}" \
    "$(printf '%024d' 7)"
head -c 128 /dev/zero >> "$d/gptq3"
packed "$d/bits3" 05 "{$(part weight_packed I32 1,1 16 20),$(part weight_scale BF16 1,2 20 24),$(part weight_zero_point I32 1,2 24 32),$(part weight_shape I64 2 0 16)}" ''
printf '\1\0\0\0\0\0\0\0\12\0\0\0\0\0\0\0abcdefghijklmnop' >> "$d/bits3"
packed "$d/mxfp6" 05 "{$(part weight_packed U8 1,24 0 24),$(part weight_scale U8 1,1 24 25)}" 0123456789abcdef012345678
packed "$d/int8" 06 "{$(part weight I8 2,3 8 14),$(part weight_scale F32 2 0 8),$(part weight_zero_point I8 2 14 16)}" 0123456789abcdef
packed "$d/fp8" 06 "{$(part weight F8_E4M3 3,4 8 20),$(part weight_scale BF16 2,2 0 8),$(part input_scale F32 1 20 24)}" 0123456789abcdef01234567
packed "$d/nvfp4" 07 "{$(part weight_packed U8 1,16 4 20),$(part weight_scale F8_E4M3 1,2 20 22),$(part weight_global_scale F32 1 0 4)}" 0123456789abcdef012345
packed "$d/mxfp4" 07 "{$(part weight_packed U8 1,16 0 16),$(part weight_scale U8 1,1 16 17)}" 0123456789abcdef0
packed "$d/mxfp8" 10 "{$(part weight F8_E4M3 1,32 0 32),$(part weight_scale F8_E8M0 1,1 32 33)}" 0123456789abcdef0123456789abcdef0

d=$out/fuzz_index
mkdir -p "$d"
echo '{"metadata":{"total_size":8},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}' > "$d/two"
echo '{"weight_map":{"a":"../m.safetensors"}}' > "$d/up"
echo '{"weight_map":{"a":"/m.safetensors","a":1}}' > "$d/root"

d=$out/fuzz_config
mkdir -p "$d"
sizes='"hidden_size":64,"intermediate_size":96,"vocab_size":97,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"rms_norm_eps":1e-05,"max_position_embeddings":512'
echo "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],$sizes,\"rope_theta\":1e4}" > "$d/llama"
echo "{\"model_type\":\"llama\",$sizes,\"attention_bias\":true,\"mlp_bias\":true,\"head_dim\":10,\"tie_word_embeddings\":true,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}}" > "$d/linear"
echo "{\"model_type\":\"llama\",$sizes,\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":500000.0,\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64}}" > "$d/llama3"
echo "{\"model_type\":\"phi3\",$sizes,\"sliding_window\":47,\"original_max_position_embeddings\":64,\"partial_rotary_factor\":0.25,\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1,2],\"long_factor\":[3.5,4],\"attention_factor\":1.5,\"factor\":8}}" > "$d/phi3"
echo "{\"model_type\":\"gpt_oss\",$sizes,\"num_local_experts\":4,\"num_experts_per_tok\":2,\"swiglu_limit\":7.0,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,\"truncate\":false}}" > "$d/gpt_oss"
echo "{\"model_type\":\"deepseek_v3\",$sizes,\"q_lora_rank\":null,\"kv_lora_rank\":16,\"qk_nope_head_dim\":10,\"qk_rope_head_dim\":6,\"v_head_dim\":12,\"n_routed_experts\":8,\"num_experts_per_tok\":2,\"moe_intermediate_size\":20,\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e4m3\",\"weight_block_size\":[128,128]},\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,\"mscale\":1.0,\"mscale_all_dim\":1.0}}" > "$d/deepseek"

d=$out/fuzz_choice
mkdir -p "$d"
echo '0{"vocab":9,"tokenizer":"bytes","items":[{"context":[1,2],"choices":[[3],[4,5]],"answer":1},{"context":[8],"choices":[[3],[4],[0]],"answer":0}]}' > "$d/two"
echo '1{"vocab":9,"items":[{"context":[1],"choices":[[3],[9]],"answer":2}]}' > "$d/outside"

d=$out/fuzz_quark
mkdir -p "$d"
cp "$(dirname "$0")"/../../configs/quark/*.json "$d"
echo '{"compute_scale_loss":"RMSE","scaling_layers":[{"prev_op":"a","layers":["b"],"inp":"b","module2inspect":""}]}' > "$d/small"

d=$out/fuzz_sealed
mkdir -p "$d"
echo '{"version":1,"fingerprint":"0123456789abcdef","shape":[2,2,3],"parts":{"model":"0000000000000001"},"done":[[0,0,1],[1,1,2]],"seconds":1.5,"grid":"2x1"}' > "$d/state"
echo '{"of":"0123 safetensors 5000000000 a8","files":[{"name":"config.json","size":3,"hash":"0123456789abcdef"},{"name":"../x","size":-1,"hash":"01"}]}' > "$d/manifest"
echo '{"seed":1,"phases":[{"name":"n","passes":[{"pass":"gptq","bits":3}]},{}],"bits":{"linears":{"q_proj":{"bits":8}}}}' > "$d/recipe"

# GGUF: numbers as w (u32) and q (u64), texts with their length, raw bytes for the rest.
w() { printf "\\$(printf %03o $(($1 % 256)))\\$(printf %03o $(($1 / 256)))\\0\\0"; }
q() { w "$1" && printf '\0\0\0\0'; }
s() { q "$(printf '%s' "$1" | wc -c)" && printf '%s' "$1"; }
gguf() { printf GGUF && w "$1" && q "$2" && q "$3"; }

d=$out/fuzz_gguf
mkdir -p "$d"
{ gguf 3 0 0; } > "$d/empty"
{ gguf 2 0 3; s a; w 4; w 7; s b; w 8; s text; s c; w 9; w 8; q 2; s x; s yz; } > "$d/keys"
{ gguf 3 0 4; s a; w 7; printf '\1'; s b; w 6; printf '\0\0\200\77'; s c; w 9; w 6; q 1; w 0; s d; w 12; q 0; } > "$d/reals"
{ gguf 3 2 1; s general.alignment; w 4; w 8; s t; w 2; q 32; q 1; w 2; q 0; s u; w 1; q 2; w 0; q 24; printf '%040d' 7; } > "$d/tensors"
for type in 10:84 11:110 12:144 13:176 14:210 23:136 34:54 35:66; do
    { gguf 3 1 1; s general.alignment; w 4; w 1; s t; w 1; q 256; w ${type%:*}; q 0; printf "%0${type#*:}d" 7; } > "$d/type${type%:*}"
done
word() { s "$1" && w 8 && s "$2"; }
size() { s "$1" && w 4 && w "$2"; }
one() { s "$1" && w 6 && printf '\0\0\200\077'; } # 1.0
sizes() { word general.architecture $1 && size $1.block_count 1 && size $1.embedding_length 4 && size $1.feed_forward_length 8 &&
    size $1.attention.head_count 1 && size $1.context_length 64 && one $1.attention.layer_norm_rms_epsilon; }
embedding() { s token_embd.weight && w 2 && q 4 && q 2 && w 0 && q 0; }
{ gguf 3 2 7; sizes llama; embedding; s rope_freqs.weight; w 1; q 2; w 0; q 32; printf '%0100d' 0 | tr 0 @; } > "$d/llama"
{ gguf 3 4 7; sizes llama; embedding; s blk.0.attn_q.weight; w 2; q 4; q 4; w 1; q 32; s blk.0.attn_k.bias; w 1; q 4; w 0; q 64
    s blk.0.ffn_up_exps.weight; w 3; q 32; q 1; q 2; w 8; q 96; printf '%0200d' 7; } > "$d/model"
{ gguf 3 1 9; sizes gemma3; word gemma3.rope.scaling.type linear; one gemma3.rope.scaling.factor; embedding; printf '%0100d' 7; } > "$d/gemma3"
{ gguf 3 3 8; sizes phi3; size phi3.rope.scaling.original_context_length 8; embedding; s rope_factors_long.weight; w 1; q 2; w 0; q 32
    s rope_factors_short.weight; w 1; q 2; w 0; q 64; printf '%0140d' 0 | tr 0 @; } > "$d/phi3"
some() { size $1.expert_count 2 && size $1.expert_used_count 1 && size $1.expert_feed_forward_length 8; }
{ gguf 3 3 14; sizes gpt-oss; some gpt-oss; size gpt-oss.attention.sliding_window 8; word gpt-oss.rope.scaling.type yarn
    one gpt-oss.rope.scaling.factor; size gpt-oss.rope.scaling.original_context_length 8; embedding; s blk.0.attn_sinks.weight; w 1; q 1; w 0; q 32
    s blk.0.ffn_up_exps.bias; w 2; q 8; q 2; w 0; q 64; printf '%0160d' 0 | tr 0 @; } > "$d/gpt-oss"
{ gguf 3 2 13; sizes glm4moe; some glm4moe; size glm4moe.expert_shared_count 1; size glm4moe.leading_dense_block_count 0
    s glm4moe.expert_weights_norm; w 7; printf '\1'; embedding; s blk.0.exp_probs_b.bias; w 1; q 2; w 0; q 32; printf '%0100d' 0 | tr 0 @; } > "$d/glm4moe"
{ gguf 3 0 6; word tokenizer.ggml.model gpt2; word tokenizer.ggml.pre llama-bpe; s tokenizer.ggml.tokens; w 9; w 8; q 4; s a; s b; s ab; s '<s>'
    s tokenizer.ggml.token_type; w 9; w 5; q 4; w 1; w 1; w 1; w 3; s tokenizer.ggml.merges; w 9; w 8; q 1; s 'a b'
    size tokenizer.ggml.bos_token_id 3; } > "$d/tokenizer"
{ gguf 3 0 5; word tokenizer.ggml.model llama; s tokenizer.ggml.tokens; w 9; w 8; q 5; s a; s b; s ab; s '<s>'; s '<0x0A>'
    s tokenizer.ggml.token_type; w 9; w 5; q 5; w 1; w 1; w 1; w 3; w 6; s tokenizer.ggml.scores; w 9; w 6; q 5; w 0; w 0; w 0; w 0; w 0
    size tokenizer.ggml.bos_token_id 3; } > "$d/pieces"

d=$out/fuzz_bpe
mkdir -p "$d"
printf '%s' '{"model":{"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2,"Ġ":3},"merges":["a b"]},"added_tokens":[{"id":4,"content":"<s>","normalized":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[4]}}}}' > "$d/json"
{ cat "$d/json"; printf '\0ab a<s>b 1'; } > "$d/both"
printf '\0%s' "abc don't  12 <a>b<a> 😀
 x" > "$d/text"
