"""Drivers of real robots as they behave towards ROS, quirks included, over simulated arms. For tests and demonstrations."""
