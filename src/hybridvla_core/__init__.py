"""HybridVLA without ROS: the model, its inference and training, and the safety filter."""
from hybridvla_core import moved

__version__ = "0.1.0"

moved.install()
