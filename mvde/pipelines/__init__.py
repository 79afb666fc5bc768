"""Training, evaluation and batch inference in PyTorch."""
