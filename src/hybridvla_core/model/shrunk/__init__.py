"""Decoder blocks with weights in fewer bits than the checkpoint's: opt-in, measured, and never silent."""
