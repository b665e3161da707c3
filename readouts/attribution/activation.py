"""Class activation maps: the score of every node under a linear head."""

from __future__ import annotations

from torch import Tensor, nn

from readouts.functional.checks import segments_of
from readouts.segments import Segments


def class_activation(
    head: nn.Linear,
    x: Tensor,
    batch: Tensor | Segments | None = None,
    readout: str = "mean",
    target: int | None = None,
    *,
    bias: bool = True,
) -> Tensor:
    r"""Score every node by what it gives to the logits of ``head(readout(x))``.

    With w and b the head's weight and bias, and n the number of nodes of a graph:

    - ``mean``: s_i = w x_i + b, what the logit would be if all nodes were like this one;
    - ``sum``: s_i = w x_i + b / n.

    The mean, or sum, of the scores of a graph is its logit, up to the rounding of the matrix product.
    A graph without nodes has a logit, the bias, but no scores.

    Args:
        head: the linear layer after the readout, [F] -> [C].
        x: node states [N, F] before the readout, of the head's dtype.
        batch: graph of every node, int64 or int32 [N], in any order, or `Segments`; None for one graph.
        readout: ``"mean"`` or ``"sum"``, the readout before the head.
        target: the class to score; None for all.
        bias: True to spread the bias evenly over the nodes; False to leave it out, so that scores add up
            to the logit minus b.

    Returns:
        [N] for a target, else [N, C].

    Raises:
        TypeError: an argument has a type or dtype that cannot be used.
        ValueError: x does not fit the head, `batch` does not fit x, or `readout` is another.
        IndexError: the head has no class `target`, or `batch` names a graph that is not there.

    Source: Zhou et al., "Learning deep features for discriminative localization" (arXiv 1512.04150); on
    graphs Pope et al., "Explainability methods for graph convolutional neural networks" (CVPR 2019).

    Example:
        >>> head = torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(head.weight)
        >>> class_activation(head, torch.tensor([[1.0, 2.0], [0.0, -1.0]]), target=0)
        tensor([ 3., -1.], grad_fn=<SelectBackward0>)
    """
    _check(head, x, readout, target)
    graphs = segments_of(x, batch, None, None)
    scores = nn.functional.linear(x, head.weight)
    if bias and head.bias is not None:
        nodes = 1 if readout == "mean" else graphs.count[graphs.index].unsqueeze(1)
        scores = scores + head.bias / nodes
    return scores if target is None else scores[:, target]


def _check(head: nn.Linear, x: Tensor, readout: str, target: int | None) -> None:
    if not isinstance(head, nn.Linear):
        raise TypeError(f"head: expected a torch.nn.Linear, got {type(head).__name__}")
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a tensor, got {type(x).__name__}")
    if x.dim() != 2 or x.shape[1] != head.in_features:
        raise ValueError(f"x: expected node states [N, {head.in_features}], got shape {tuple(x.shape)}")
    if readout not in ("mean", "sum"):
        raise ValueError(f"readout: expected 'mean' or 'sum', got {readout!r}")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int)):
        raise TypeError(f"target: expected an integer or None, got {type(target).__name__}")
    if target is not None and not 0 <= target < head.out_features:
        raise IndexError(f"target: expected a class from 0 to {head.out_features - 1}, got {target}")
