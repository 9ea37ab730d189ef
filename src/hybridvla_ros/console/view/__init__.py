"""Markers for RViz: exactly what the filter judges, without a robot description."""
