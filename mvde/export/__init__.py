"""Export: a depth model to an ONNX file and its manifest, measured against PyTorch before anybody sees it."""
