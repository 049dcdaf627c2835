"""Train sparse neural networks in PyTorch."""
