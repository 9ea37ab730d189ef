"""ROS 1 nodes, message conversions and robot adapters."""
