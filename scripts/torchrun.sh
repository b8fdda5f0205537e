#!/usr/bin/env bash
# A run on several machines with torchrun: call this on each of them with the same arguments.
#
#   NODES=2 NODE=0 HEAD=node0:29500 bash scripts/torchrun.sh --config configs/paper/multi_teacher.yaml   # on the first
#   NODES=2 NODE=1 HEAD=node0:29500 bash scripts/torchrun.sh --config configs/paper/multi_teacher.yaml   # on the second
#
# NODES: machines. NODE: number of this one, from 0. HEAD: host:port of the first, which all must reach. PROCESSES: on
# each machine, by default its GPUs. A process that ends badly ends the others; start again with --ckpt_path last.
set -euo pipefail
: "${NODES:=1}" "${NODE:=0}" "${HEAD:=127.0.0.1:29500}" "${PROCESSES:=$(nvidia-smi --list-gpus | wc -l)}"
exec torchrun --nnodes "$NODES" --node-rank "$NODE" --nproc-per-node "$PROCESSES" \
  --rdzv-backend static --rdzv-endpoint "$HEAD" --master-addr "${HEAD%:*}" --master-port "${HEAD##*:}" \
  -m fireopd fit "$@" --trainer.num_nodes "$NODES" --trainer.devices "$PROCESSES"
