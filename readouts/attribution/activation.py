"""Class activation maps: the score of every node under the head of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from readouts.attribution.contribution import contributions
from readouts.functional.checks import check_x, segments_of
from readouts.keywords import explain_keywords
from readouts.nn.base import run
from readouts.segments import Segments


@explain_keywords
def class_activation(
    head: nn.Module,
    x: Tensor,
    batch: Tensor | Segments | None = None,
    readout: str | nn.Module | Sequence[str | nn.Module] = "mean",
    target: int | None = None,
    *,
    bias: bool = True,
) -> Tensor:
    r"""Score every node by its contribution to the logits of ``head(readout(x))``.

    Example:
        >>> head = torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(head.weight)
        >>> class_activation(head, torch.tensor([[1.0, 2.0], [0.0, -1.0]]), target=0)
        tensor([ 3., -1.], grad_fn=<SelectBackward0>)

    After ``"mean"`` or ``"sum"`` and a linear head the scores are exact. With w and b its weight and bias,
    and n the number of nodes of a graph:

    - ``mean``: s_i = w x_i + b, what the logit would be if all nodes were like this one;
    - ``sum``: s_i = w x_i + b / n.

    The mean, or sum, of the scores of a graph is its logit, up to the rounding of the matrix product.

    After other readouts, or several, with r = sum_i c_i and c_i the `contributions` of node i, and for other
    heads f, such as an MLP, the scores are first-order shares, s_i = f'(r) c_i + (f(r) - f'(r) r) / n. Their
    sum over the nodes of a graph is its logit. For a linear head each share is exact: w c_i + b / n. For a
    ReLU network the shares are those of the linear function that it is near r; they describe the effect of a
    small change of a node, not what the logit is without the node. After ``"mean"`` the shares are multiplied
    by n, so that, as above, their mean is the logit.

    Args:
        head: the layers after the readout, [F] -> [C], which process every row alone: a linear layer or a
            network. Layers that depend on the batch or are random, such as batch norm and dropout, must be in
            evaluation mode.
        x: node states [N, F] before the readout, of the head's dtype.
        batch: graph of every node, int64 or int32 [N], in any order, or `Segments`; None for one graph.
        readout: the readout before the head: a name or module that `contributions` accepts, or several.
        target: the class to score; None for all.
        bias: True to spread the bias, or f(r) - f'(r) r, evenly over the nodes; False to leave it out.

    Returns:
        [N] for a target, else [N, C]. First-order shares have no gradient. A graph without nodes has a
        logit, but no scores.

    Raises:
        TypeError: an argument has a type or dtype that cannot be used.
        ValueError: x does not fit the head, `batch` does not fit x, the readout is not a sum over nodes, or
            the head is in training mode.
        IndexError: the head has no class `target`, or an index in `batch` is negative.

    Source: Zhou et al., "Learning deep features for discriminative localization" (arXiv 1512.04150); on
    graphs Pope et al., "Explainability methods for graph convolutional neural networks" (CVPR 2019); shares:
    Selvaraju et al., "Grad-CAM" (arXiv 1610.02391).
    """
    readout = "sum" if readout == "add" else readout
    _check(head, x, target)
    graphs = segments_of(x, batch, None, None)
    if isinstance(head, nn.Linear) and isinstance(readout, str) and readout in ("mean", "sum"):
        if x.shape[1] != head.in_features:
            raise ValueError(f"x: expected node states [N, {head.in_features}], got shape {tuple(x.shape)}")
        scores = nn.functional.linear(x, head.weight)
        if bias and head.bias is not None:
            nodes = 1 if readout == "mean" else graphs.count[graphs.index].unsqueeze(1)
            scores = scores + head.bias / nodes
    else:
        scores = _shares(head, x, graphs, readout, bias)
    if target is not None and not 0 <= target < scores.shape[1]:
        raise IndexError(f"target: expected a class from 0 to {scores.shape[1] - 1}, got {target}")
    return scores if target is None else scores[:, target]


def _shares(
    head: nn.Module,
    x: Tensor,
    graphs: Segments,
    readout: str | nn.Module | Sequence[str | nn.Module],
    bias: bool,
) -> Tensor:
    """Return the first-order shares [N, C] of the nodes in the logits of the head."""
    for layer in head.modules():
        if layer.training and isinstance(layer, _BatchNorm | _DropoutNd):
            raise ValueError(f"head: expected evaluation mode, call head.eval(), got {layer} in training")
    try:
        parts = contributions(readout, x, graphs)
    except ValueError as problem:
        raise ValueError(str(problem).replace("reduce:", "readout:", 1)) from None
    with torch.inference_mode(False), torch.enable_grad():
        rows = graphs.totals(parts)[0].clone().requires_grad_()
        logits = run(head, rows, "head")
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(rows):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"head: expected a network from [B, F] to [B, C], got {got}")
        slopes = [
            torch.autograd.grad(column.sum(), rows, retain_graph=True)[0] for column in logits.unbind(1)
        ]
    index, count = graphs.index, graphs.count.clamp(min=1).unsqueeze(1)
    slope = torch.stack(slopes, dim=1)  # [B, C, F]
    scores = torch.einsum("ncf,nf->nc", slope[index], parts)
    if bias:
        rest = logits.detach() - torch.einsum("bcf,bf->bc", slope, rows.detach())
        scores = scores + (rest / count)[index]
    return scores * count[index] if isinstance(readout, str) and readout == "mean" else scores


def _check(head: nn.Module, x: Tensor, target: int | None) -> None:
    if not isinstance(head, nn.Module):
        raise TypeError(f"head: expected a torch.nn.Module, got {type(head).__name__}")
    check_x(x)
    if x.dim() != 2:
        raise ValueError(f"x: expected node states [N, F], got shape {tuple(x.shape)}")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int)):
        raise TypeError(f"target: expected an integer or None, got {type(target).__name__}")
