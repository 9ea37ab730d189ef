"""The model: vision towers, projector, decoder, embedders, presets."""
