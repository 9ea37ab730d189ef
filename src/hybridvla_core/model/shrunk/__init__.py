"""Weights of the decoder's blocks in fewer bits than the checkpoint's: opt-in, measured, and never silent."""
