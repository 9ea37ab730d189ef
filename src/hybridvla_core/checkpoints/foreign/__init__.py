"""Traces of other programs in a source: their tensor names, settings and statistics."""
