"""A Franka arm driven by franka_ros: `adapter.py` wires the parts, each in a file of its own."""
