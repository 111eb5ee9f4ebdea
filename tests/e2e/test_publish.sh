#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A model's folder can be published: card, recipe, summary and sums, equal for any number of ranks, after kills and by an export, and
# never over somebody's own text.
. "$(dirname "$0")/lib.sh"
export OMP_NUM_THREADS=1
micro llama_default
model=m_llama_default
echo '{}' >$model/tokenizer.json
echo 'words' >$model/LICENSE
printf -- '---\ntags: [a]\nlicense: "apache-2.0"\n---\nlicense: mit\n' >$model/README.md
recipe r.json $model 2
run=("$blockq" run r.json)
folders="safetensors compressed-tensors"

# published DIR: its files are whole, and none has a name of this machine
published() {
    check "$1: the sums" bash -c "cd '$1' && sha256sum --strict --quiet -c SHA256SUMS"
    check "$1: all files have sums" diff <(cd "$1" && find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort) \
        <(sed 's/^[0-9a-f]*  //' "$1/SHA256SUMS")
    check "$1: no path" not grep -rlF -e "$temp" -e "$(uname -n)" "$1" --include='*.json' --include=README.md
}
not() { ! "$@"; }
# equal A B: both folders of two runs
equal() { for folder in $folders; do check "$1/$folder is $2/$folder" diff -r "$1/$folder" "$2/$folder"; done; }

expect 0 "${run[@]}" -o one
for folder in $folders; do published one/$folder; done
fp=$(sed 's/.*"fp": \([0-9]*\.[0-9]\{3\}\).*/\1/' one/result.json)
check "the card has $fp" grep -q "^| perplexity, 5 windows of 32 tokens, offset 0, text xxh3.* | $fp" one/safetensors/README.md
check "the licence" grep -qx 'license: "apache-2.0"' one/safetensors/README.md
check "what it is for" grep -q '^- vLLM: `vllm serve MODEL`$' one/compressed-tensors/README.md
check "4 bits, and F32 scales of rows" grep -qE '"bits_per_weight": 4\.[0-9]+,' one/safetensors/quantization.json
expect 0 mpi 3 run r.json -o three
equal one three
expect 0 mpi 2 export --run one --format compressed-tensors --out later
check "an export is the run's output" diff -r one/compressed-tensors later
mkdir again && cp later/recipe.json again/
cp -r $model cal.h5 eval.h5 again/
expect 0 "$blockq" run again/recipe.json -o again.run
check "the recipe makes the folder again" diff -r later again.run/compressed-tensors

# killed while a shard, a file beside it, or one of the texts is written
for fault in writer_write:2 writer_close:2 copy_write:2; do
    rm -rf killed && cp -r one killed && rm -r killed/*tens* killed/ckpt/export_* killed/result.json
    BQ_FAULT=$fault expect 1 "${run[@]}" -o killed
    expect 0 mpi 2 run r.json -o killed
    equal one killed
done
for ((hit = 3; hit < 14; hit += 2)); do # names that files get: of the state, the result, the texts
    rm -rf killed/*/README.md killed/*/SHA256SUMS killed/*/*recipe.json killed/*/quantization.json killed/result.json
    BQ_FAULT=file_rename:$hit expect 1 "${run[@]}" -o killed
    expect 0 "${run[@]}" -o killed
    equal one killed
done

# what is known, when it is known; shards stay
shards() { stat -c %i "$1"/{safetensors,compressed-tensors}/model.safetensors; }
expect 0 "${run[@]}" --no-eval -o bare
check "no number yet" not grep -q '^## Evaluation' bare/safetensors/README.md
published bare/safetensors
before=$(shards bare)
expect 0 "${run[@]}" -o bare
equal one bare
expect 0 "${run[@]}" -o bare --set eval.windows=3 --set outputs.0.base_model=org/name --set outputs.1.license=mit
check "another evaluation" grep -q '^| perplexity, 3 windows' bare/compressed-tensors/README.md
check "another name" grep -qx 'base_model: "org/name"' bare/safetensors/README.md
check "another licence" grep -qx 'license: "mit"' bare/compressed-tensors/README.md
for folder in $folders; do published bare/$folder; done
expect 0 mpi 2 export --run bare --format compressed-tensors --out mit
check "an export has the licence, too" diff -r bare/compressed-tensors mit
expect 0 "${run[@]}" -o bare --no-eval --set bits.activations=8 --set 'outputs=[{"format": "safetensors", "dir": "a8"}]'
check "numbers of other inputs" not grep -q '^## Evaluation' bare/a8/README.md
expect 0 "${run[@]}" -o bare --no-eval --set bits.embedding.bits=4 --set 'outputs=[{"format": "safetensors", "dir": "e4"}]'
check "numbers of another embedding" not grep -q '^## Evaluation' bare/e4/README.md
expect 0 "${run[@]}" -o bare
equal one bare
check "shards were not written again" [ "$before" = "$(shards bare)" ]

# somebody's own card, in a run and in an export over an earlier one
for card in bare/safetensors later; do
    echo 'My words.' >$card/README.md
    sed -i 's/ README.md/& /' $card/SHA256SUMS
done
expect 0 "${run[@]}" -o bare
check "it is said" grep -q "bare/safetensors/README.md is not blockq's and stays as it is" err
expect 0 "$blockq" export --run one --format safetensors --out later
for card in bare/safetensors later; do
    check "$card has the words" [ "$(cat $card/README.md)" = 'My words.' ]
    published $card
done
rm later/README.md
expect 0 "$blockq" export --run one --format safetensors --out later
check "a card again" diff -r one/safetensors later
mkfifo fifo && ln -sf ../fifo later/quantization.json
expect 2 "$blockq" export --run one --out later
one_error "'later/quantization.json': a link"

# a name that would be markup, and a licence that is none
mv $model 'x | <b> `y`'
printf -- '---\nlicense: a b: [c]\n---\n' >'x | <b> `y`/README.md'
expect 0 "${run[@]}" --no-eval -o odd --set 'model=x | <b> `y`'
check "a string" grep -qxF 'base_model: "x | <b> `y`"' odd/safetensors/README.md
check "a text" grep -qxF '# x \| \<b\> \`y\`, 4 bits, safetensors' odd/safetensors/README.md
check "another licence" grep -qx 'license: "other"' odd/safetensors/README.md
published odd/safetensors
finish
