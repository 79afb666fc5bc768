"""Import of third-party ONNX files: read, checked, given mvde's input and output, and compared with the original."""
