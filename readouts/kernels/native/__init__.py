"""The Python side of the native core (`csrc/`): load, choose an instruction set, call with tensors."""
