"""The face of the native core (`csrc/`): loads it, chooses an instruction set, calls it with tensors."""
