"""One file for catkin (which reads it through catkin_pkg) and for pip."""
from setuptools import find_packages, setup

setup(
    name="hybridvla",
    version="0.1.0",
    description="HybridVLA vision-language-action control stack for ROS 1",
    packages=find_packages("src"),
    package_dir={"": "src"},
    package_data={"hybridvla_ros": ["console/operator/page.*"], "hybridvla_sim": ["assets/*", "assets/meshes/*"]},
)
