"""The operators in PyTorch: every dtype, on every device with float64."""
