"""ONNX graphs in memory: dtypes, loading and checking, editing, counting, running and saving, without PyTorch."""
