"""A policy on another computer, over the openpi wire: WebSocket frames of msgpack with numpy arrays."""
