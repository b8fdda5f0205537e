# Image for NVIDIA GPUs, with vLLM: docker build -f scripts/docker/cuda.Dockerfile -t fireopd .
FROM pytorch/pytorch:2.12.0-cuda13.0-cudnn9-runtime
ENV PYTHONUNBUFFERED=1 HF_HUB_DISABLE_TELEMETRY=1
WORKDIR /fireopd
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY callbacks callbacks
COPY configs configs
COPY scripts scripts
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[vllm,data,lora]'
ENTRYPOINT ["fireopd"]
CMD ["--help"]
