"""HybridVLA without ROS: the model, its inference and training, and the safety filter."""

__version__ = "0.1.0"
