"""Comparison with numbers recorded from the released implementation."""
