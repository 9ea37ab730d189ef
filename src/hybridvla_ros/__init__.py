"""ROS 1 nodes, message conversions and robot adapters."""
import hybridvla_core  # noqa: F401  # old names of modules that have moved are answered from there
