# syntax=docker/dockerfile:1
# ROS Noetic with Python 3.8, without a model: the robot computer's filter and adapters, and the policy computer's policy node,
# which queries the model's container. From the repository root: docker build -f docker/robot.Dockerfile -t hybridvla-robot:0.1.0 .
ARG BASE=ros:noetic-ros-base-focal
# hadolint ignore=DL3006  # the argument has a tag; docs/containers.md says how to give it a digest
FROM ${BASE}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/hybridvla

# What changes rarely comes first, so that an edit of the sources does not repeat the installation.
COPY docker/apt_update.sh docker/
COPY scripts/setup.sh scripts/with_env.sh scripts/
COPY scripts/lib scripts/lib
COPY requirements/noetic requirements/noetic
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked --mount=type=cache,target=/var/cache/apt,sharing=locked \
    docker/apt_update.sh && scripts/setup.sh --without-policy --until packages
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
  CMD ["python3", "/opt/hybridvla/docker/healthy.py", "/safety_filter_node"]
ENTRYPOINT ["/opt/hybridvla/scripts/with_env.sh"]
CMD ["roslaunch", "hybridvla", "safety.launch", "robot_config:=config/robots/fr3.yaml", "dry_run:=true"]
