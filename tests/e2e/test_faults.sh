#!/usr/bin/env bash
# Every named fault in src/ happens once: the run ends within 10 s with one message (or does without what failed, and
# warns), and the same command then ends with the bytes of a run without faults.
. "$(dirname "$0")/lib.sh"
micro llama_default
recipe r.json m_llama_default 6
mapfile -t points < <(grep -rhoE 'bq_fault\("[a-z0-9_]+"\)' "$here/../../src" | cut -d'"' -f2 | sort -u)
check "src/ has fault points" [ ${#points[@]} -ge 8 ]
for point in "${points[@]}"; do check "docs name $point" grep -q "\`$point\`" "$here/../../docs/architecture.md"; done
expect 0 "$blockq" run r.json -o clean

# 0: it ended the run; 1: the run did without; 2: the point was not reached so often
one_fault() {
    local dir=$1_$2 code=0 since=$SECONDS
    BQ_FAULT=$1:$2 timeout 60 "$blockq" run r.json -o "$dir" --save-every 0.0001 >out 2>err </dev/null || code=$?
    check "$1:$2 took $((SECONDS - since)) s" [ $((SECONDS - since)) -le 10 ]
    if ((code)); then
        check "$1:$2 ended with code $code" [ $code = 1 ]
        one_error "[a-z]"
    fi
    expect 0 "$blockq" run r.json -o "$dir"
    same clean "$dir"
    check "$1:$2 left $(find "$dir" -name '*.tmp')" [ -z "$(find "$dir" -name '*.tmp')" ]
    if ((code)); then return 0; fi
    return 1
}

for point in "${points[@]}"; do
    ended=
    for hit in 1 2 3 5 12; do
        if one_fault "$point" $hit; then ended="$ended $hit"; fi
    done
    echo "$point: ended the run at hit${ended:- none}"
    check "$point was never reached" [ -n "$ended" ]
done
finish
