"""Episodes in process, metrics and reports."""
