"""Episodes of tasks on a ROS graph: `hybridvla evaluate --ros`."""
