"""The operator's page: shows live what the robot does and why, with a stop button; in a browser on this computer."""
