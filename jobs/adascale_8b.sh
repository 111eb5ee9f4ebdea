#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#SBATCH --job-name=adascale-8b --output=%x.log --open-mode=append
#SBATCH --nodes=4 --ntasks-per-node=1 --exclusive
#SBATCH --time=12:00:00 --signal=USR1@300 --requeue
# AdaScale of an 8B Llama, 4 bits; goes on by itself after a time limit.
#   BQ_MODEL=DIR BQ_TOKENS=train.h5 BQ_EVAL=test.h5 sbatch [--nodes=N] [--gpus-per-node=N --ntasks-per-node=N] jobs/adascale_8b.sh
# from blockq's directory (or with BQ_HOME set to it).  jobs/slurm.sh lists all settings; `blockq status` tells how far it is.
: "${BQ_HOME:=${SLURM_SUBMIT_DIR:-.}}" "${BQ_RECIPE:=$BQ_HOME/configs/llama3_8b_adascale.json}"
. "$BQ_HOME/jobs/slurm.sh"
job quantize "${SLURM_JOB_NUM_NODES:-1}" "$BQ_OUT"
