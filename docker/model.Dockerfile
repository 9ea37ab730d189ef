# syntax=docker/dockerfile:1
# The model alone, for the policy computer: Debian 12, Python 3.11, torch with its own CUDA libraries, no ROS. The host provides the
# driver. From the repository root: docker build -f docker/model.Dockerfile -t hybridvla-model:0.1.0 .
ARG BASE=debian:12.12-slim
# hadolint ignore=DL3006  # the argument has a tag; docs/containers.md says how to give it a digest
FROM ${BASE}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/hybridvla

# What changes rarely comes first, so that an edit of the sources does not repeat the installation.
COPY scripts/setup.sh scripts/
COPY scripts/lib scripts/lib
COPY requirements/debian12 requirements/debian12
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked --mount=type=cache,target=/var/cache/apt,sharing=locked \
    scripts/setup.sh --without-ros --until packages
RUN --mount=type=cache,target=/root/.cache/pip scripts/setup.sh --without-ros --until python

COPY src src
COPY config config
COPY checkpoints/tiny checkpoints/tiny
COPY docker/healthy.py docker/

RUN useradd --uid 1000 --create-home --shell /bin/bash model
USER 1000
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
  CMD ["python3", "/opt/hybridvla/docker/healthy.py", "http://127.0.0.1:8000/healthz"]
ENTRYPOINT ["/opt/hybridvla/.venv/bin/hybridvla"]
CMD ["serve", "--checkpoint", "/opt/hybridvla/checkpoints/tiny"]
