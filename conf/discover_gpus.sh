#!/bin/sh
# Tells a standalone Spark worker which GPUs it has, as Spark's resource scheduling wants to hear it:
#   spark.worker.resource.gpu.discoveryScript /path/to/discover_gpus.sh
#   spark.worker.resource.gpu.amount          as many as the machine has
# It honours CUDA_VISIBLE_DEVICES, whose devices a process numbers from 0. No GPU is an error, not an empty list: a worker
# without the GPUs it was promised must not start.
set -eu
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    count=$(printf '%s\n' "$CUDA_VISIBLE_DEVICES" | tr ',' '\n' | grep -c .)
else
    command -v nvidia-smi >/dev/null 2>&1 || { echo "discover_gpus.sh: nvidia-smi is not on the path" >&2; exit 1; }
    count=$(nvidia-smi --query-gpu=index --format=csv,noheader | grep -c .) || count=0
fi
[ "$count" -gt 0 ] || { echo "discover_gpus.sh: nvidia-smi names no GPU" >&2; exit 1; }
addresses=$(seq -s '", "' 0 $((count - 1)))
printf '{"name": "gpu", "addresses": ["%s"]}\n' "$addresses"
