"""Trainings that differ in one thing, and how they are told apart (Tables 1 and 3 of the paper)."""
