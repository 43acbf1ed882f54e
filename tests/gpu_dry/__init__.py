"""The step on CUDA tensors without a GPU: what a machine that has none can tell of the way there (tests/README.md)."""
