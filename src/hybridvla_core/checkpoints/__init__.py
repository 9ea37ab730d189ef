"""The safetensors checkpoint folder: reading, writing, conversion, integrity."""
