"""The safety filter: no torch, no ROS."""
