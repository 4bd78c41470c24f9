"""Tensors of any shape: arrays, `.npy`, `.safetensors` and `.npz` files."""
