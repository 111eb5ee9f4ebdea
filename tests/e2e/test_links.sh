#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Links, FIFOs, folders and files with several names wherever blockq has a file: never a hang, never a byte of another file
# changed, one message and a documented code; and outputs that are inputs.  BQ_FULL=1: every kind at every name.
. "$(dirname "$0")/lib.sh"
micro llama_default
echo '{}' >m_llama_default/tokenizer.json # for outputs to copy
recipe r.json m_llama_default 2
soon=(timeout -s KILL "${hang:-300}") # only what hangs takes so long
run=("${soon[@]}" "$blockq" run r.json)
expect 0 "${run[@]}" -o clean
expect 75 "${run[@]}" -o half --stop-after-blocks 1

# What must not change: a file, a folder with names that blockq uses, the inputs.
mkdir victims victims/folder victims/folder/ckpt
for file in victim folder/keep folder/lock folder/run.log folder/fp_000.h5 folder/fp_000.h5.valid folder/model.hash.json \
    folder/model.safetensors folder/model.safetensors.1.tmp folder/ckpt/lock; do
    head -c 500 /dev/urandom >"victims/$file"
done
sums() { find victims m_llama_default text text2 cal.h5 eval.h5 ! -type p | LC_ALL=C sort | while read -r f; do echo "$f $(stat -c %F "$f") $(md5sum <"$f" 2>/dev/null)"; done; }
before=$(sums)
untouched() {
    if [[ $(sums) == "$before" ]]; then good; else bad "$1: $(diff <(echo "$before") <(sums))"; fi
}

# plant KIND PATH: in the place of what is there
plant() {
    rm -rf "$2"
    mkdir -p "$(dirname "$2")"
    case $1 in
    fifo) mkfifo "$2" ;;
    link) ln -s "$temp/victims/victim" "$2" ;;
    dangling) ln -s "$temp/victims/new" "$2" ;;
    away) ln -s "$temp/victims/folder" "$2" ;;
    folder) mkdir "$2" ;;
    names) ln victims/victim "$2" ;;
    esac
}

# Each name of a finished run, in a run that has half of the work before it.  Refused before the work, or ended with the bytes of
# a clean run.  Of the six kinds two at each name, others at each; always those that were once followed.
mapfile -t places < <(cd clean && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort)
check "a run's names: ${places[*]}" [ ${#places[@]} -ge 20 ]
always='fifo:run.log link:run.log names:run.csv link:ckpt/lock names:ckpt/lock fifo:safetensors/model.safetensors away:safetensors
    away:ckpt away:acts link:acts/fp_000.h5.valid link:ckpt/model.hash.json fifo:run.csv'
kinds=(fifo link dangling away folder names) refused=0
for ((i = 0; i < ${#places[@]}; i++)); do
    place=${places[i]}
    for ((k = 0; k < ${#kinds[@]}; k++)); do
        kind=${kinds[k]} code=0
        if [[ $kind =~ folder|names && -d clean/$place ]]; then continue; fi # that is what it is; there is no such thing
        if [[ $kind:$place == names:*/README.md ]]; then continue; fi         # somebody's own text stays
        if [[ ! ${BQ_FULL-} ]] && (((i + k) % 5)) && [[ ! $always =~ (^|[[:space:]])$kind:$place([[:space:]]|$) ]]; then continue; fi
        rm -rf try
        cp -r half try
        plant "$kind" "try/$place"
        "${run[@]}" -o try >out 2>err </dev/null || code=$?
        untouched "$kind at $place"
        case $code in
        0) same clean try ;;
        2) one_error "'try/$place'" && refused=$((refused + 1)) ;;
        3) one_error "try/${place%/*}.* not from blockq" ;; # a file of somebody else's
        *) bad "$kind at $place: code $code: $(tail -n 3 err)" ;;
        esac
        "${soon[@]}" "$blockq" status try >out 2>err </dev/null || code=$?
        check "$kind at $place: status ends with code $code" [ $code -lt 100 ]
    done
done
check "most are refused: $refused" [ $refused -ge 25 ]

# refused CODE TEXT COMMAND...: one error line with TEXT in it, and nothing was changed
refused() {
    expect "$1" "${soon[@]}" "${@:3}"
    one_error "$2"
    untouched "${*:3}"
}

# A finished run is only read; its folders may not lead away, either.
cp -r clean read
plant away read/ckpt
refused 2 "'read/ckpt': a link" "$blockq" eval --run read --tokens eval.h5 --ctx 32 --windows 2
refused 2 "'read/ckpt': a link" "$blockq" export --run read --out later
check "nothing was made" [ ! -e later ]

rm -rf read # what is left of an output of this run is not somebody else's
cp -r clean read
rm read/safetensors/model.safetensors
expect 0 "${run[@]}" -o read

# ---- where an output may go
run=("$blockq" run r.json)
refused 2 "neither empty nor a run directory" "${run[@]}" -o m_llama_default
ln -s m_llama_default also
refused 2 "neither empty nor a run directory" "${run[@]}" -o also
refused 2 "neither empty nor a run directory (it holds '" "${run[@]}" -o victims
refused 2 "run directory victims/victim cannot be made" "${run[@]}" -o victims/victim
mkdir book && cp r.json book/recipe.json
refused 2 "neither empty nor a run directory (it holds 'recipe.json')" "${run[@]}" -o book
check "a recipe alone is no run" cmp r.json book/recipe.json
mkdir -p job/ckpt job/acts && echo 1 >job/job.nodes && ln -s job link # as a start that was killed, under Slurm, by a link
expect 0 "${run[@]}" -o link
rm job/job.nodes
same clean job
rm job/ckpt/lock # of an early version
expect 0 "${run[@]}" -o job
refused 3 'is the source model itself' "$blockq" export --run clean --out also/.
ln -s victims/folder away
refused 2 "'away': a link" "$blockq" export --run clean --out away
cp -r clean/compressed-tensors there
plant link there/tokenizer.json
refused 2 "'there/tokenizer.json': a link" "$blockq" export --run clean --out there
rm there/tokenizer.json
truncate -s 3000 there/model.safetensors # one that is ours and damaged is replaced
expect 0 "$blockq" export --run clean --out there
check "made again" diff -r clean/compressed-tensors there

# a model of links, as in the cache of a hub
mkdir hub
for file in m_llama_default/*; do ln -s "../$file" hub/; done
expect 0 "${run[@]}" --set model=hub -o hub.run
check "the same" cmp hub.run/ckpt/block_000.p0.s0.h5 clean/ckpt/block_000.p0.s0.h5
check "copied, not linked" test -f hub.run/safetensors/tokenizer.json -a ! -L hub.run/safetensors/tokenizer.json

# a file of the model that another one replaced, with its size and time; one changed where it is
cp -r m_llama_default m_twin
expect 75 "${run[@]}" --set model=m_twin -o twin --stop-after-blocks 1
cp -r twin twin2
cp -p m_twin/model.safetensors other
printf '\1' | dd of=other bs=1 seek=$(($(stat -c %s other) - 4)) conv=notrunc status=none
touch -r m_twin/model.safetensors other
cp -p m_twin/model.safetensors kept
mv other m_twin/model.safetensors
refused 2 'differs in: model' "${run[@]}" --set model=m_twin -o twin
mv kept m_twin/model.safetensors
expect 0 "${run[@]}" --set model=m_twin -o twin2
touch -r m_twin/model.safetensors stamp
printf '\1' | dd of=m_twin/model.safetensors bs=1 seek=$(($(stat -c %s m_twin/model.safetensors) - 4)) conv=notrunc status=none
touch -r stamp m_twin/model.safetensors
refused 2 'differs in: model' "${run[@]}" --set model=m_twin -o twin2

# ---- tokens: never onto a text
ln -s text link.txt && ln text names.txt
for out in text link.txt names.txt ./text; do refused 2 "is the text" "$blockq" tokens --bytes text2 text -o $out; done
mkfifo fifo
refused 2 'not a regular file' "$blockq" tokens --bytes text -o fifo
refused 2 'not a regular file' "$blockq" tokens --bytes text -o victims
ln -s victims/victim tokens.h5 # an older output's name: replaced, not followed
expect 0 "$blockq" tokens --bytes text -o tokens.h5
untouched "a link as the name of an output"
check "the link is a file now" cmp tokens.h5 cal.h5

# ---- scratch folders: of somebody else, of a killed run, of one at work; two runs at a time
mkdir scratch
print=$(sed -n 's/.*"fingerprint": *"\([0-9a-f]*\)".*/\1/p' clean/ckpt/state.json)
mine=scratch/blockq-acts-$(uname -n)
ln -s ../victims/folder "scratch/blockq-acts-$print-1"
ln -s ../victims/folder "$mine-AAAAAA"
mkdir -m 700 "$mine-BBBBBB" "$mine-CCCCCC" "$mine-DDDDDD"
for folder in B C D; do touch "$mine-$folder$folder$folder$folder$folder$folder/"{fp_000.h5,fp_000.h5.valid,fp_000.h5.123.tmp}; done
touch "$mine-CCCCCC/letter"
exec 9<"$mine-DDDDDD"
flock 9
jobs=()
for name in one two; do
    OMP_NUM_THREADS=1 "${soon[@]}" "$mpiexec" -n 2 "$blockq" run r.json --acts root --scratch scratch -o $name >out_$name 2>err_$name &
    jobs+=($!)
done
for job in "${jobs[@]}"; do check "two runs with one scratch: $(cat err_one err_two)" wait "$job"; done
exec 9<&-
for name in one two; do same clean $name; done
untouched "links in a scratch folder"
left=("" /blockq-acts-"$print"-1 "${mine#scratch}"-{AAAAAA,CCCCCC,CCCCCC/letter,DDDDDD} "${mine#scratch}-DDDDDD/"fp_000.h5{,.123.tmp,.valid})
check "what is left: $(find scratch)" diff <(find scratch | sort) <(printf 'scratch%s\n' "${left[@]}" | sort)
finish
