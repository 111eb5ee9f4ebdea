#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#SBATCH --job-name=scaling --output=%x.log --open-mode=append
#SBATCH --nodes=4 --ntasks-per-node=1 --exclusive
#SBATCH --time=04:00:00 --signal=USR1@300 --requeue
# The same recipe on 1, 2, 4, ... of the job's nodes, one run after the other, and BQ_OUT/scaling.csv: a row for each phase
# and stage of each run (rank: the stage's first), seconds summed over its blocks; and BQ_OUT/runs.csv: all rows of all
# runs, for tools/report.py.  Without Slurm: on 1, 2, 4, ... ranks.
#   BQ_COUNTS="1 2 4"   how many; the powers of two that fit, if not given
#   BQ_RECIPE=recipe.json BQ_MODEL=DIR BQ_TOKENS=train.h5 BQ_EVAL=test.h5 sbatch --nodes=8 jobs/scaling.sh
: "${BQ_HOME:=${SLURM_SUBMIT_DIR:-.}}" "${BQ_RECIPE:=$BQ_HOME/configs/llama3_8b_gptq.json}"
. "$BQ_HOME/jobs/slurm.sh"

counts() {
    local n most=${SLURM_JOB_NUM_NODES:-$(nproc)}
    for ((n = 1; n <= most; n *= 2)); do echo $n; done
}

# rows NODES DIR: of run.csv (columns in its first line), with the figures of the log and the sum of the outputs' bytes.
rows() {
    local outputs total
    outputs=$(cd "$2" && find . -name '*.safetensors' | LC_ALL=C sort | xargs -r cat | md5sum | cut -c 1-8)
    total=$(sed -nE 's/.* done in ([0-9.]+) s, export ([0-9.]+) s.*/\1,\2/p' "$2/run.log" | tail -n 1)
    "$BQ_BLOCKQ" status --json "$2" | awk -v nodes="$1" -v tasks="$tasks" -v total="${total:-,}" -v outputs="$outputs" '
        NR == FNR { # status
            if (match($0, /"(stages|replicas|fp|rtn)": [0-9.]+/)) { split($0, v, /[":, ]+/); of[v[2]] = v[3] }
            else if (/"result":/) inside = 1
            else if (inside && match($0, /"[a-z_+]+": [0-9.]+/)) { split($0, v, /[":, ]+/); last = v[3] }
            next
        }
        FNR == 1 { n = split($0, name, ","); for (i = 1; i <= n; i++) at[name[i]] = i; next }
        {
            split($0, x, ","); if (x[at["part"]] != "block") next
            key = x[at["sweep"]] "," x[at["phase"]] "," x[at["stage"]]
            if (!(key in blocks)) order[++keys] = key
            blocks[key]++; steps[key] += x[at["steps"]]
            for (i = 1; i <= n; i++) if (name[i] ~ /_s$/) seconds[key, name[i]] += x[i]
            if (x[at["peak_bytes"]] > peak[key]) peak[key] = x[at["peak_bytes"]]
        }
        END {
            for (k = 1; k <= keys; k++) {
                split(order[k], x, ",")
                printf "%d,%d,%d,%d,%s,%d,%d,%d", nodes, nodes * tasks, of["stages"], of["replicas"], order[k],
                    x[3] * of["replicas"], blocks[order[k]], steps[order[k]]
                m = split("load_s target_s passes_s advance_s save_s", part, " ")
                for (i = 1; i <= m; i++) printf ",%.4f", seconds[order[k], part[i]]
                printf ",%.0f,%s,%s,%s,%s,%s\n", peak[order[k]], total, of["fp"], of["rtn"], last, outputs
            }
        }' - "$2/run.csv"
}

study() {
    local n code
    for n in ${BQ_COUNTS:-$(counts)}; do
        if grep -qs ' done in ' "$BQ_OUT/n$n.run/run.log"; then continue; fi # in an earlier round
        code=0
        quantize "$n" "$BQ_OUT/n$n.run" || code=$?
        ((code == 0)) || return $code
    done
    {
        echo "nodes,ranks,stages,replicas,sweep,phase,stage,rank,blocks,steps,load_s,target_s,passes_s,advance_s,save_s,peak_bytes,total_s,export_s,fp,rtn,result,outputs"
        for n in ${BQ_COUNTS:-$(counts)}; do rows "$n" "$BQ_OUT/n$n.run"; done
    } >"$BQ_OUT/scaling.csv"
    for n in ${BQ_COUNTS:-$(counts)}; do sed "1s/^/run,/; 2,\$s/^/$n,/" "$BQ_OUT/n$n.run/run.csv"; done |
        awk 'NR == 1 || !/^run,/' >"$BQ_OUT/runs.csv"
}
job study
