"""ONNX graphs in memory: dtypes, reading and checking, editing, counting, running and saving. No PyTorch."""
