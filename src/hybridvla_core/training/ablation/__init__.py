"""Trainings that differ in one thing, and their comparison (Tables 1 and 3 of the paper)."""
