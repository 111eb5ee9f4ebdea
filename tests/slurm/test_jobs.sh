#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the job scripts do without a Slurm, and what they ask a Slurm for (a `srun` that says what it was asked).
# shellcheck source=../e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"
root=$(cd "$here/../.." && pwd)
micro llama_default
recipe r.json m_llama_default 6
export BQ_HOME=$root BQ_BLOCKQ=$blockq BQ_RECIPE=r.json BQ_EVAL=eval.h5 OMP_NUM_THREADS=1

# without Slurm: mpirun, and the table of a scaling study
BQ_OUT=study BQ_COUNTS="1 2" expect 0 bash "$root/jobs/scaling.sh"
check "three lines: $(cat study/scaling.csv)" [ "$(wc -l <study/scaling.csv)" = 3 ]
column() { awk -F, -v name="$1" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next } { printf "%s ", $at[name] }' study/scaling.csv; }
check "ranks $(column ranks)" [ "$(column ranks)" = "1 2 " ]
check "blocks $(column blocks), steps $(column steps)" [ "$(column blocks)$(column steps)" = "2 2 12 12 " ]
check "equal outputs $(column outputs), perplexities $(column result)" \
    awk -v o="$(column outputs)$(column result)" 'BEGIN { split(o, v, " "); exit !(v[1] == v[2] && v[3] == v[4] && v[3] > 1) }'
check "times: $(column passes_s)$(column total_s)" awk -v t="$(column passes_s)$(column total_s)" 'BEGIN { n = split(t, v, " "); exit !(n == 4 && v[1] > 0 && v[4] > 0) }'
check "runs.csv has a row a rank and part" [ "$(grep -c "^[12],.*,phase," study/runs.csv) $(grep -c "^run,sweep" study/runs.csv)" = "3 1" ]
mv study/scaling.csv before.csv
BQ_OUT=study BQ_COUNTS="1 2" expect 0 bash "$root/jobs/scaling.sh"
check "a second time nothing is run again" cmp before.csv study/scaling.csv

# a stop outside Slurm ends with 75; a marker keeps a job from going on
BQ_OUT=part BQ_OPTIONS="--stop-after-blocks 1" expect 75 bash "$root/jobs/phi35.sh"
touch part/job.stop
BQ_OUT=part expect 1 bash "$root/jobs/phi35.sh"
check "the marker is named: $(cat out)" grep -q 'job.stop is there' out
rm part/job.stop
BQ_OUT=part BQ_SCRATCH=$PWD/disk BQ_STAGE=1 BQ_MODEL=m_llama_default expect 0 bash "$root/jobs/phi35.sh"
check "the model was read from its copy" grep -q "$PWD/disk/model: 2 blocks" part/run.log
check "the run names the original" grep -q '"model": ".*/m_llama_default"' part/recipe.json
BQ_OUT=whole expect 0 bash "$root/jobs/phi35.sh"
same whole part

# what a Slurm is asked for
mkdir bin
printf '#!/bin/sh\necho "srun $*"\n' >bin/srun
chmod +x bin/srun
export PATH=$PWD/bin:$PATH SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=3 SLURM_NTASKS_PER_NODE=2 SLURM_CPUS_ON_NODE=8 SLURM_JOB_NAME=j
unset OMP_NUM_THREADS
BQ_OUT=asked BQ_MODEL=m BQ_SETUP='echo set up && true' expect 0 bash "$root/jobs/gptq_8b.sh"
check "set up" grep -q '^set up$' out
check "$(grep srun out)" grep -q "^srun --mpi=pmix --kill-on-bad-exit=1 --nodes=3 --ntasks=6 --ntasks-per-node=2 --cpus-per-task=4 --cpu-bind=cores $blockq run r.json --out asked --threads 4 --set model=m --set eval.tokens=eval.h5" out
SLURM_GPUS_ON_NODE=2 BQ_MPI=pmix_v4 BQ_OUT=asked expect 0 bash "$root/jobs/gptq_8b.sh"
check "$(grep srun out)" grep -q 'srun --mpi=pmix_v4 .* --gpu-bind=single:1 ' out

# A rank was killed while it left after a stop, and the site does not requeue: another job goes on.
cat >bin/srun <<'TEXT'
#!/bin/bash
while [[ $1 == --* ]]; do shift; done
env -u SLURM_JOB_ID -u SLURM_PROCID "$@"
exit 137
TEXT
printf '#!/bin/sh\necho "scontrol $*" >>asked.txt\n[ "$1" = show ] || exit 1\necho "   StdOut=/logs/j.log"\n' >bin/scontrol
printf '#!/bin/sh\necho "sbatch $*" >>asked.txt\nenv | grep -c ^SLURM_ >slurm_variables\necho 9\n' >bin/sbatch
printf '#!/bin/sh\necho 2:00:00\n' >bin/squeue
chmod +x bin/*
export SLURM_JOB_PARTITION=p SLURM_JOB_ACCOUNT=a OMP_NUM_THREADS=1
BQ_OUT=killed BQ_OPTIONS="--stop-after-blocks 1" BQ_SBATCH=--qos=q expect 0 bash "$root/jobs/phi35.sh"
check "it asked for a requeue, then for a job: $(cat asked.txt)" [ "$(cut -d' ' -f1,2 asked.txt | xargs)" = "scontrol requeue scontrol show sbatch --parsable" ]
check "as large: $(tail -n 1 asked.txt)" grep -q -- "--dependency=singleton --job-name=j --partition=p --nodes=3 --ntasks-per-node=2 --time=2:00:00 --output=/logs/j.log --account=a --qos=q $root/jobs/phi35.sh" asked.txt
check "no variable of this job goes along" [ "$(cat slurm_variables)" = 0 ]
check "job 9: $(cat out)" grep -q 'job 9 goes on, on 3 nodes' out
BQ_OUT=killed expect 137 bash "$root/jobs/phi35.sh"
for job in adascale_8b phi35 gptq_8b scaling; do
    check "$job: a signal to all ranks, with margin" grep -qE '^#SBATCH .*--signal=USR1@300' "$root/jobs/$job.sh"
    check "$job: requeued, its log goes on" grep -qE -- '--requeue' "$root/jobs/$job.sh"
done
finish
