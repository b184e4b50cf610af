"""Recognise activities from live sensors with an exported model: NumPy and onnxruntime alone, no PyTorch."""
