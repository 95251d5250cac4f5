#!/bin/bash
# A sweep in one Slurm allocation: Ray on every node, `clp sweep` once, on the first node.
#
#     OUT=/nfs/results sbatch examples/cluster/slurm.sh
#
# Submit from the root of the checkout, which all nodes must see. Killed, preempted or out of time, the
# job goes back into the queue; the same command then does only what is missing.
#
#SBATCH --job-name=clp-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
# On nodes without GPUs, leave this one out. Ray finds the GPUs of its step by itself.
#SBATCH --gpus-per-node=1
# Whole nodes: at the end `ray stop` ends all of this user's Ray on them, and the ports are Ray's defaults.
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time limit this shell gets USR1.
#SBATCH --signal=B:USR1@120

set -euo pipefail
export OUT="${OUT:?name a folder that all nodes see, or a URL such as s3://bucket/folder}"

# `ray symmetric-run` calls `ray` by name, so the environment has to be on the path.
# shellcheck disable=SC1091
source "${VENV:-.venv}/bin/activate"

# Without a token, whoever reaches these nodes can run code on them. Said aloud, since otherwise the head
# takes up a token it finds and the other nodes do not.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN="$(umask 077 && ray get-auth-token --generate)"
export RAY_AUTH_TOKEN

# This script runs on the first node. Set HEAD_IP where its first address is not the one the others reach.
head="${HEAD_IP:-$(hostname -I | cut -d ' ' -f 1)}:${PORT:-6379}"
# Half a minute, the default, is short for Python on a busy network file system.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# The sweep's exit code takes its way through a file: `ray symmetric-run` ends with 0 if Ray did not start.
STATUS="$(mktemp)"
export STATUS

# shellcheck disable=SC2329
requeue() {
    if [[ ! -s "$STATUS" ]] && ((${SLURM_RESTART_COUNT:-0} < ${MAX_RESTARTS:-20})); then
        echo "time is nearly up: back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
}
trap requeue USR1

# srun does not take over --cpus-per-task (Slurm 22.05 and newer), so it is given again. A node that drops
# out does not end the work of the others.
# shellcheck disable=SC2016
srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --wait=0 --kill-on-bad-exit=0 \
    ray symmetric-run \
    --address "$head" \
    --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" \
    -- \
    bash -c '
        clp sweep examples/sweep.yaml --address auto --out "$OUT"
        echo $? >"$STATUS"
    ' &

# A signal with a trap ends `wait`, not the step.
while kill -0 $! 2>/dev/null; do
    wait $! || true
done
code="$(<"$STATUS")"
rm -f "$STATUS"
exit "${code:-1}"
