# Image for CPUs: docker build -f scripts/docker/cpu.Dockerfile -t fireopd:cpu .
FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 HF_HUB_DISABLE_TELEMETRY=1
WORKDIR /fireopd
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY callbacks callbacks
COPY configs configs
COPY scripts scripts
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[data,lora]'
ENTRYPOINT ["fireopd"]
CMD ["--help"]
