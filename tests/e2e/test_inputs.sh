#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Bad input of every kind: one message, the right exit code, and once it is repaired the same command ends with the bytes
# of a run that never saw it.
. "$(dirname "$0")/lib.sh"
micro llama_default phi3_short
recipe r.json m_llama_default 6
run=("$blockq" run r.json)
expect 0 "${run[@]}" -o clean

# refused CODE TEXT COMMAND...: one error line with TEXT in it
refused() {
    expect "$1" "${@:3}"
    one_error "$2"
}
# The run directory of the refused run, tried again with everything in order.
then_clean() {
    expect 0 "${run[@]}" -o "$1"
    same clean "$1"
}

# ---- model: break MODEL COMMAND... keeps the old one, mend brings it back
broken() {
    rm -rf m_llama_default.good
    cp -r m_llama_default m_llama_default.good
    "$@"
}
mend() {
    rm -rf m_llama_default
    mv m_llama_default.good m_llama_default
}
weights=m_llama_default/model.safetensors config=m_llama_default/config.json
for size in 0 5 1000 -1 -50000; do
    broken truncate -s $size $weights
    refused 3 safetensors "${run[@]}" -o cut$size
    mend
    then_clean cut$size
done
poke() { # FILE OFFSET BYTES: offset < 0 counts from the end
    local at=$2
    if ((at < 0)); then at=$(($(stat -c %s "$1") + at)); fi
    printf "$3" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}
broken poke $weights -4 '\0\0\300\177'
refused 3 NaN "${run[@]}" -o nan
mend
then_clean nan
broken poke $weights -40000 '\0\0\200\177'
refused 3 inf "${run[@]}" -o inf
mend
broken sed -i 's/"hidden_size": *[0-9]*/"hidden_size": 64/' $config
refused 3 shape "${run[@]}" -o shape
mend
then_clean shape
broken sed -i 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 3/' $config
refused 3 'layers.2' "${run[@]}" -o layers
mend
broken sed -i 's/"model_type": *"llama"/"model_type": "mamba"/' $config
refused 3 mamba "${run[@]}" -o family
mend
broken sed -i 's/"llama"/"lla/' $config
refused 3 config.json "${run[@]}" -o json
mend
broken sed -i 's/"model_type": *"llama"/"model_type": "x\\u001b[2J\\nbq: forged"/' $config
refused 3 'x?\[2J bq: forged' "${run[@]}" -o family
check "one line" [ "$(wc -l <err)" = 1 ]
mend
fifo() { rm "$1" && mkfifo "$1"; }
broken fifo $weights
refused 3 'not a regular file' timeout -s KILL $hang "${run[@]}" -o fifo
mend
broken fifo $config
refused 3 'not a regular file' timeout -s KILL $hang "${run[@]}" -o fifo
mend
then_clean fifo
broken rm $config
refused 3 config.json "${run[@]}" -o noconfig
mend
broken rm $weights
refused 3 safetensors "${run[@]}" -o noweights
mend
refused 3 nowhere "${run[@]}" --set model=nowhere -o nomodel

# ---- tokens
mv cal.h5 away.h5
refused 3 cal.h5 "${run[@]}" -o notokens
head -c 3000 away.h5 >cal.h5
refused 3 cal.h5 "${run[@]}" -o notokens
cp text cal.h5
refused 3 cal.h5 "${run[@]}" -o notokens
mv away.h5 cal.h5
then_clean notokens
mkfifo fifo.h5
refused 3 'not a regular file' timeout -s KILL $hang "${run[@]}" --set calibration.tokens=fifo.h5 -o notokens
refused 3 'not a regular file' timeout -s KILL $hang "$blockq" inspect fifo.h5
refused 3 'not a regular file' timeout -s KILL $hang "$blockq" tokens --bytes fifo.h5 -o fifo_tokens.h5
refused 2 'not a regular file' timeout -s KILL $hang "$blockq" run fifo.h5 -o notokens
python=$(for p in python3 /usr/bin/python3; do "$p" -c 'import h5py' 2>/dev/null && echo "$p" && break; done) || true
if [[ $python ]]; then # what h5py writes, by prepare.py and in a newer format
    expect 0 "$python" "$here/../../tools/prepare.py" text -o py.h5 --tokenizer bytes
    expect 0 "$blockq" inspect py.h5
    check "h5py's tokens are read" cmp <(sed -n 3p out) <("$blockq" inspect cal.h5 | sed -n 3p)
    "$python" -c 'import h5py; old = h5py.File("py.h5"); new = h5py.File("new.h5", "w", libver="latest"); old.copy("tokens", new)'
    refused 3 "newer HDF5 format .* libver='earliest'" "${run[@]}" --set calibration.tokens=new.h5 -o notokens
fi
expect 0 "$blockq" tokens --bytes <(head -c 1000 text) <(tail -c +1001 text) -o two.h5
check "texts one behind the other" cmp two.h5 cal.h5
vectors=$here/../vectors # a tokenizer of its own
expect 0 "$blockq" tokens --tokenizer "$vectors/peer_tokens_llama3.tokenizer.json" text -o bpe.h5
check "a BOS in front: $(cat err)" grep -q 'tokens of 700 ids, a BOS in front$' err
if [[ $python ]] && "$python" -c 'import tokenizers' 2>/dev/null; then
    expect 0 "$python" "$here/../../tools/prepare.py" text -o py.h5 --tokenizer "$vectors/peer_tokens_llama3.tokenizer.json"
    check "the same tokens as by prepare.py" cmp <("$blockq" inspect bpe.h5 | tail -n +2) <("$blockq" inspect py.h5 | tail -n +2)
fi
refused 3 'not valid JSON' "$blockq" tokens --tokenizer text text -o no.h5
mkdir none && refused 3 'No such file' "$blockq" tokens --tokenizer none text -o no.h5
check "nothing was written" [ ! -e no.h5 ]
cp text text.txt
refused 3 'is a text, and only models whose tokens are bytes read texts; this one has a vocabulary of 97' \
    "${run[@]}" --set calibration.tokens=text.txt -o notokens
refused 3 'is a text, and only models' "${run[@]}" --set eval.tokens=text.txt -o notokens
tr '!-`' 'B-~' <text >large
"$blockq" tokens --bytes large -o large.h5 2>/dev/null
refused 3 vocabulary "${run[@]}" --set calibration.tokens=large.h5 -o vocabulary
# made by the model's tokenizer, by another one, by one that cannot be compared; both files by the same one
tokens() { "$make_micro" tokens "$1" "$2" "$3"; }
echo '{}' >m_llama_default/tokenizer.json
hash=$(sha256sum <m_llama_default/tokenizer.json | cut -c -64)
tokens cal.h5 cal_own.h5 "$hash" && tokens eval.h5 eval_own.h5 "$hash"
tokens cal.h5 cal_other.h5 "${hash//[0-4]/5}" && tokens cal.h5 cal_named.h5 something
expect 0 "${run[@]}" --set calibration.tokens=cal_own.h5 --set eval.tokens=eval_own.h5 -o own
refused 3 "cal_other.h5 was made by a tokenizer.json.*--tokenizer .*m_llama_default" "${run[@]}" --set calibration.tokens=cal_other.h5 -o other
refused 3 'cal_named.h5 was made by a tokenizer of 256 ids (something), the model.s vocabulary has 97' "${run[@]}" --set calibration.tokens=cal_named.h5 -o other
refused 3 'calibrate and evaluate with one tokenizer' "${run[@]}" --set calibration.tokens=cal_own.h5 -o other
refused 3 'cal_other.h5 was made by' "$blockq" eval --model m_llama_default --tokens cal_other.h5 --ctx 32 --windows 2
refused 3 'cal_other.h5 was made by' "$blockq" eval --run own --tokens cal_other.h5 --ctx 32 --windows 2
check "nothing was made" [ ! -e other ]
rm -r own m_llama_default/tokenizer.json
refused 3 'has 2400 tokens' "${run[@]}" --set calibration.samples=1000 -o few
refused 3 'has 2400 tokens' "${run[@]}" --set calibration.offset=2399 -o few
refused 3 eval.h5 "${run[@]}" --set eval.windows=1000 -o few
refused 3 'tokens' "${run[@]}" --set eval.ctx=2000 --set eval.windows=0 -o few
check "nothing was made" [ ! -e few ]

# ---- recipe and command line
refused 2 'did you mean.*samples' "${run[@]}" --set calibration.sampels=4 -o typo
sed 's/"calibration"/"calibraton"/' r.json >typo.json
refused 2 'did you mean.*calibration' "$blockq" run typo.json -o typo
sed 's/"samples": 6/"samples": "six"/' r.json >typo.json
refused 2 'samples' "$blockq" run typo.json -o typo
sed 's/"eval"/"model"/' r.json >typo.json
refused 2 'model' "$blockq" run typo.json -o typo
head -c 100 r.json >typo.json
refused 2 typo.json "$blockq" run typo.json -o typo
refused 2 nothing.json "$blockq" run nothing.json -o typo
refused 2 'adascal' "${run[@]}" --set phases.0.passes.0.pass=adascal -o typo
refused 2 'bits' "${run[@]}" --set bits.decoder.bits=9 -o typo
refused 2 'batch' "${run[@]}" --set phases.0.passes.0.batch=4 -o typo
refused 2 'qkv_proj' "${run[@]}" --set bits.linears.qkv_proj.bits=8 -o typo
refused 2 'calibration.tokens' "${run[@]}" --set calibration.tokens= -o typo
refused 2 'no such command' "$blockq" rum r.json
refused 2 'no such option' "${run[@]}" --iterations 3
refused 2 'RECIPE.json is missing' "$blockq" run
refused 2 'whole number' "${run[@]}" --threads 0
OMP_NUM_THREADS=99999 refused 2 'OMP_NUM_THREADS=99999: must be' "${run[@]}" -o typo
OMP_NUM_THREADS=many refused 2 'OMP_NUM_THREADS=many: must be' "$blockq" eval --model m_llama_default --tokens eval.h5
OMP_NUM_THREADS=99999 expect 0 "${run[@]}" --threads 1 -o threads
refused 2 'may be used' "${run[@]}" --memory 1M -o typo
refused 2 'may be used' "$blockq" plan r.json --memory 1M
check "nothing was made" [ ! -e typo ]

# ---- the run directory
refused 2 text "${run[@]}" -o text/run
refused 2 text "${run[@]}" -o text
cp -r clean changed
refused 2 'differs in: seed (3 here, 0 in the run); give another --out' "${run[@]}" --set seed=3 -o changed
refused 2 'calibration.length (16 here, 24 in the run), bits.decoder.bits (8 here, 4 in the run);' "${run[@]}" --set calibration.length=16 --set bits.decoder.bits=8 -o changed
refused 2 'differs in: .*model' "${run[@]}" --set model=m_phi3_short -o changed
refused 2 'differs in: .*tokens' "${run[@]}" --set calibration.tokens=eval.h5 -o changed
# recipe.json and state.json help to say it; what cannot be said by one is not what was done with the other
cp -r changed told
rm told/recipe.json
refused 2 'differs in: seed;' "${run[@]}" --set seed=3 -o told
rm told/ckpt/state.json
refused 2 'differs in: model, tokens or numerics' "${run[@]}" --set seed=3 -o told
cp changed/recipe.json told
truncate -s 100 told/ckpt/state.json
refused 2 'differs in: seed (3 here, 0 in the run);' "${run[@]}" --set seed=3 -o told
then_clean told
then_clean changed
expect 0 "${run[@]}" --set eval.windows=3 --set phases.0.name=again -o changed # may change
expect 75 "${run[@]}" --stop-after-blocks 1 -o half
refused 3 'not finished' "$blockq" export --run half --out half_out
refused 3 'not finished' "$blockq" eval --run half --tokens eval.h5 --ctx 32
check "nothing was made" [ ! -e half_out ]
refused 3 m_llama_default "$blockq" export --run clean --format safetensors --out m_llama_default
then_clean half

# damage: noticed, made again, the same bytes
damage() {
    cp -r clean damaged
    "$@"
    then_clean damaged
    rm -r damaged
}
for at in 0 600 -9 -5000; do damage poke damaged/ckpt/block_000.p0.s0.h5 $at 'XYZ'; done
damage truncate -s 3000 damaged/ckpt/block_001.p0.s0.h5
damage cp damaged/ckpt/block_000.p0.s0.h5 damaged/ckpt/block_001.p0.s0.h5
damage rm damaged/ckpt/state.json
damage truncate -s 20 damaged/ckpt/state.json
damage truncate -s 20 damaged/ckpt/model.hash.json
damage rm -r damaged/acts damaged/ckpt/block_001.p0.s0.h5
spoil_acts() { rm damaged/ckpt/block_001.p0.s0.h5 && poke damaged/acts/fp_000.h5 $1 XYZ; }
for at in 0 -9 -20000; do damage spoil_acts $at; done
spoil_log() { rm damaged/ckpt/block_001.p0.s0.h5 && truncate -s 70 damaged/acts/fp_000.h5.valid; }
damage spoil_log
damage rm -r damaged/safetensors damaged/compressed-tensors
damage rm -r damaged/ckpt

# a full disk, then a larger one
mkdir small
if mount -t tmpfs -o size=16k tmpfs small 2>/dev/null; then
    for size in 16k 60k 120k 200k 300k 400k 500k; do
        mount -o remount,size=$size small
        refused 1 'failed\|cannot\|no room\|No space' "${run[@]}" -o small/run
        echo "disk of $size: $(grep "^bq" err)"
    done
    mount -o remount,size=64m small
    then_clean small/run
    mount -o remount,ro small # also for root
    refused 2 'cannot be made\|cannot be written\|cannot open' "${run[@]}" -o small/unwritable
    refused 2 'cannot be made\|cannot be written\|cannot open' "${run[@]}" -o small/run
    refused 1 'small/t.h5' "$blockq" tokens --bytes text -o small/t.h5
    umount small
else
    echo "skipped: a full disk, a read-only one (mounting is not permitted)"
fi
finish
