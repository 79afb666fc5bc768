"""PyTorch pipelines for training, evaluation and batch inference."""
