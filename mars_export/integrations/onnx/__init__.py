"""A steered checkpoint as ONNX graphs, with the steering inside."""
