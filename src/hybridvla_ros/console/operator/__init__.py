"""The operator's page: what the robot does and why, live, with a stop button; in a browser on this computer."""
