"""One file for catkin (which reads it through catkin_pkg) and for pip."""
from setuptools import setup

PACKAGES = [
    "hybridvla_core", "hybridvla_core.checkpoints", "hybridvla_core.cli", "hybridvla_core.data",
    "hybridvla_core.evaluation", "hybridvla_core.evaluation.parity",
    "hybridvla_core.evaluation.replay", "hybridvla_core.model", "hybridvla_core.policy",
    "hybridvla_core.safety", "hybridvla_core.safety.limits", "hybridvla_core.training", "hybridvla_ros",
    "hybridvla_ros.adapters", "hybridvla_ros.replay", "hybridvla_ros.adapters.franka", "hybridvla_ros.stand_ins", "hybridvla_sim"]

setup(
    name="hybridvla",
    version="0.1.0",
    description="HybridVLA vision-language-action control stack for ROS 1",
    packages=PACKAGES,
    package_dir={"": "src"},
    package_data={"hybridvla_sim": ["assets/*", "assets/meshes/*"]},
)
