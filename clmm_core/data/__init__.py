"""Recordings to windows: what a device has, as tensors with a presence mask."""
