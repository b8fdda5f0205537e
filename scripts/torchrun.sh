#!/usr/bin/env bash
# Run on several machines with torchrun: start this script on each machine with the same arguments.
#
#   NODES=2 NODE=0 HEAD=node0:29500 bash scripts/torchrun.sh --config configs/paper/multi_teacher.yaml   # on the first
#   NODES=2 NODE=1 HEAD=node0:29500 bash scripts/torchrun.sh --config configs/paper/multi_teacher.yaml   # on the second
#
# NODES: number of machines. NODE: index of this machine, from 0. HEAD: host:port of the first, reachable by all.
# PROCESSES: processes per machine, by default the number of GPUs. If a process fails, the others end too; resume with
# --ckpt_path last.
set -euo pipefail
: "${NODES:=1}" "${NODE:=0}" "${HEAD:=127.0.0.1:29500}" "${PROCESSES:=$(nvidia-smi --list-gpus | wc -l)}"
exec torchrun --nnodes "$NODES" --node-rank "$NODE" --nproc-per-node "$PROCESSES" \
  --rdzv-backend static --rdzv-endpoint "$HEAD" --master-addr "${HEAD%:*}" --master-port "${HEAD##*:}" \
  -m fireopd fit "$@" --trainer.num_nodes "$NODES" --trainer.devices "$PROCESSES"
