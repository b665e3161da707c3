"""The loop over epochs for networks that work on PyG's batches, node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data


def fit(
    network: nn.Module,
    batches: Callable[[], Sequence[Any]],
    loss: Callable[[Tensor, Any], Tensor],
    learning_rate: float,
    epochs: int,
    halve: int = 50,
) -> Iterator[int]:
    """Train with Adam, whose rate halves every `halve` epochs; yields 1, 2, ... after each epoch.

    `batches` is asked for those of each epoch. Raises `FloatingPointError` where weights overflow.
    """
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, halve, 0.5)
    for epoch in range(1, epochs + 1):
        network.train()
        for batch in batches():
            optimiser.zero_grad()
            loss(network(batch), batch).backward()
            optimiser.step()
        schedule.step()
        yield epoch
    if not all(weight.isfinite().all() for weight in network.parameters()):
        raise FloatingPointError(f"weights are not finite after {epochs} epochs")


def shuffled(
    graphs: Sequence[Data],
    batch_size: int,
    seed: int,
    device: str | torch.device,
    redraw: int = 10,
    form: Callable[[Batch], Any] = lambda batch: batch,
) -> Callable[[], list[Any]]:
    """Return what draws the batches of each epoch: other ones every `redraw` epochs, else in another order.

    `form` makes of PyG's batch what the network takes.
    All batches of an epoch have one size, up to one graph: no graph stands alone in a batch norm.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: list[Any] = []
    pieces, epoch = -(-len(graphs) // batch_size), 0

    def of_epoch() -> list[Batch]:
        nonlocal epoch
        if epoch % redraw == 0:
            order = torch.randperm(len(graphs), generator=generator).tensor_split(pieces)
            drawn[:] = [
                form(Batch.from_data_list([graphs[place] for place in piece.tolist()]).to(device))
                for piece in order
            ]
        epoch += 1
        return [drawn[place] for place in torch.randperm(pieces, generator=generator).tolist()]

    return of_epoch
