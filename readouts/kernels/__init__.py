"""The ways to compute the operators of `readouts.ops`; all return the bits of `reference`."""
