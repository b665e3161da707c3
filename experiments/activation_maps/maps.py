"""Networks that score mutagens above 0, and what each atom gave to the score.

The map of a molecule of n atoms has one score an atom, and the mean of the scores is the logit. Behind a
mean that is the class activation map of Zhou et al. (arXiv 1512.04150), w x_i + b. Behind a max it is
n w p_i + b, where p_i is what atom i gave to the max: the channels that it won, shared with those that tie.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from datasets.splits import Split
from experiments.activation_maps.task import Task
from experiments.models import GIN
from readouts.attribution import class_activation, contributions

READOUTS = ("mean", "max")
LAYERS, WIDTH = 2, 32
LEARNING_RATE, BATCH_SIZE = 0.005, 64


def train(task: Task, split: Split, readout: str, device: str, seed: int, steps: int) -> GIN:
    """Train a network to score mutagens above 0; without steps it stays as it was drawn."""
    torch.manual_seed(seed)
    network = GIN(task.molecules[0].x.size(1), 1, readout, WIDTH, LAYERS).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = torch.randperm(len(split.train)).tolist()
        picked, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        batch = together([task.molecules[split.train[i]] for i in picked], network)
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(batch)[:, 0], batch.y).backward()
        optimiser.step()
    return network.eval()


def together(molecules: Sequence[Data], network: GIN) -> Batch:
    """A batch of molecules on the device of the network."""
    return Batch.from_data_list(list(molecules)).to(network.head.weight.device)


@torch.no_grad()
def logits(network: GIN, molecules: Sequence[Data]) -> Tensor:
    """The logit of every molecule [B], on the CPU."""
    return network(together(molecules, network))[:, 0].cpu()


@torch.no_grad()
def activation_maps(network: GIN, molecules: Sequence[Data], readout: str) -> list[Tensor]:
    """The scores of the atoms of every molecule [n], which have the logit as their mean; on the CPU."""
    batch, head = together(molecules, network), network.head
    states = network.nodes(batch)
    if readout == "mean":
        scores = class_activation(head, states, batch.batch, readout, target=0)
    else:
        parts = contributions(readout, states, batch.batch) @ head.weight[0]
        scores = parts * batch.ptr.diff()[batch.batch] + head.bias
    return list(scores.cpu().split([molecule.num_nodes for molecule in molecules]))
