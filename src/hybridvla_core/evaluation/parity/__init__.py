"""Comparison with values recorded from the released implementation."""
