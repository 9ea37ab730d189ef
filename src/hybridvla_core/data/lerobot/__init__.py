"""LeRobotDataset v3 on disk, written and read with pyarrow and PyAV; v2.1 is read only. docs/data.md has the layout."""
