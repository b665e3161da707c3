"""Exit codes, and names that options accept: a wrong one is refused before PyG is imported."""

CANNOT_RUN, INTERRUPTED = 2, 130

CHECKS = {  # by their names on the command line
    "permutations": "permutation invariance",
    "edges": "edge order invariance",
    "batch": "batch independence",
    "gradients": "gradient equivariance",
    "positions": "rotation and translation invariance",
    "size": "report card",
}

# Of conformance; a test compares them with `readouts.testing.conformance`.
LEVELS = ("must", "bits", "validation")
KINDS = ("sum", "mean", "max", "min", "median", "var", "std", "mul", "other")
ROWS = (
    *("empty graph", "NaN", "infinities", "signed zeros", "median", "median in bfloat16"),
    *("variance of close values", "population variance", "integers", "narrow floats", "correctly rounded"),
    *("ties share the gradient", "single extreme", "median gradient", "std gradient at 0"),
    *("first derivative", "second derivative", "no nodes", "no graphs", "no features", "one dimension"),
    *("more dimensions", "strides", "int32 batch", "batch in any order", "ptr", "no batch", "no size"),
    *("index out of range", "negative index", "batch of another length", "ptr that is no partition"),
    *("order of the nodes", "order, to the bit", "gradient and order", "gradient and order, to the bit"),
    *("other graphs", "other graphs, to the bit", "torch.compile", "torch.export", "torch.func.vmap"),
    *("autocast", "copies", "state_dict"),
)
