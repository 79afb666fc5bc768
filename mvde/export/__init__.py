"""Export of a depth model to an ONNX file and its manifest, checked against PyTorch before it is published."""
