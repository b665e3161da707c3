"""The elementary reductions on CUDA devices, in Triton."""
