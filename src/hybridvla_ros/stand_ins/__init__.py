"""Drivers of real robots as ROS sees them, quirks included, over simulated arms. For tests and demonstrations."""
