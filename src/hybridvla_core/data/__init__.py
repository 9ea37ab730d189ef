"""Datasets, mixtures and statistics."""
