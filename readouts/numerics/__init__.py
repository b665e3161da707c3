"""Arithmetic that kernels, accumulator and ranks share: exact sums, ordered keys, the last rounding."""
