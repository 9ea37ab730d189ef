# syntax=docker/dockerfile:1
# The simulated rig with filter and policy node, on Debian 12 with its own ROS 1 packages. The model has its own container.
# From the repository root: docker build -f docker/sim.Dockerfile -t hybridvla-sim:0.1.0 .
ARG BASE=debian:12.12-slim
# hadolint ignore=DL3006  # the argument has a tag; docs/containers.md says how to give it a digest
FROM ${BASE}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/hybridvla

# What changes rarely comes first, so that an edit of the sources does not repeat the installation.
COPY scripts/setup.sh scripts/with_env.sh scripts/
COPY scripts/lib scripts/lib
COPY requirements/debian12 requirements/debian12
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked --mount=type=cache,target=/var/cache/apt,sharing=locked \
    scripts/setup.sh --without-policy --until packages
RUN --mount=type=cache,target=/root/.cache/pip scripts/setup.sh --without-policy --until python

COPY CMakeLists.txt package.xml setup.py ./
COPY cmake cmake
COPY msg msg
COPY srv srv
COPY cfg cfg
COPY nodes nodes
COPY test/standin_msgs test/standin_msgs
RUN scripts/setup.sh --without-policy

COPY src src
COPY launch launch
COPY config config
COPY checkpoints/tiny checkpoints/tiny
COPY docker/healthy.py docker/

# ROS logs and recordings go to the home folder; program and configuration are read-only for this user.
RUN useradd --uid 1000 --create-home --shell /bin/bash rig
USER 1000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python3", "/opt/hybridvla/docker/healthy.py", "/sim_rig_node", "/safety_filter_node"]
ENTRYPOINT ["/opt/hybridvla/scripts/with_env.sh"]
CMD ["roslaunch", "hybridvla", "sim.launch", "server:=ws://127.0.0.1:8000"]
