"""Open X-Embodiment sets (RLDS in TFRecord files), read once and written as LeRobotDataset, without TensorFlow."""
