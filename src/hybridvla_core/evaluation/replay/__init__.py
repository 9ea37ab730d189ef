"""Checks a checkpoint on recorded motion: what the robot did next, errors, senses, thresholds, report. No ROS."""
