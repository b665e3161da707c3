"""The operators in plain PyTorch: every dtype, on every device with float64."""
