"""GIN with a linear head, trained on the small graphs; every class counts the same."""

from __future__ import annotations

import copy
import math
from itertools import islice

import torch
from torch.nn.functional import cross_entropy

from experiments.accuracy.networks import Network
from experiments.accuracy.resident import Batch, Resident
from experiments.accuracy.training import Settings, Training, epochs
from experiments.extrapolation.judging import class_weights
from experiments.extrapolation.task import HOLD_OUT, TRAIN, Parts
from experiments.models import GIN, RowLinear
from readouts.nn import AttentionReadout

PROPORTIONS = ("mean", "max", "median", "attention")
READOUTS = ("sum", *PROPORTIONS, "sum+mean+max", "size-aware mean")
LEARNING_RATE = 0.01


class BalancedTraining(Training):
    """Training in which every class counts the same."""

    def __init__(self, network: Network, learning_rate: float, weight: torch.Tensor) -> None:
        """Take the weights of the classes, float [C]."""
        super().__init__(network, learning_rate)
        self.weight = weight

    def step(self, batch: Batch) -> None:
        """One step of gradient descent on the class-weighted mean loss of a batch."""
        self.slopes.zero_()
        cross_entropy(self.network(batch), batch.y, weight=self.weight).backward()
        self.optimiser.step()


def new_network(resident: Resident, readout: str, settings: Settings) -> Network:
    """A network whose head, and whose gate of attention, are one `RowLinear`."""
    width, features = settings.width, resident.x.shape[1]
    network = Network("gin", readout, features, resident.classes, width, settings.rounds)
    if readout == "attention":
        network.readout = AttentionReadout(RowLinear(width, 1))
    pooled = network.readout(torch.zeros(1, width)).shape[-1]
    network.add_module("head", RowLinear(pooled, resident.classes))
    return network.to(resident.x.device)


def train(resident: Resident, parts: Parts, readout: str, seed: int, settings: Settings) -> Network:
    """Train on the small graphs; the epoch with the lowest class-weighted loss on the hold-out is kept.

    Raises `FloatingPointError` where that loss is not finite.
    """
    torch.manual_seed(seed)
    network = new_network(resident, readout, settings)
    hold_out = resident.batch(parts[HOLD_OUT])
    weight = class_weights(resident.y[list(parts[TRAIN])], resident.classes)
    training = BalancedTraining(network, settings.learning_rates[0], weight)
    lowest, found, kept = math.inf, 0, {}
    for epoch, batches in enumerate(islice(epochs(resident, parts[TRAIN], settings, seed), settings.epochs)):
        network.train()
        for batch in batches:
            training.step(batch)
        with torch.no_grad():
            loss = float(cross_entropy(network.eval()(hold_out), hold_out.y, weight=weight))
        if not math.isfinite(loss):
            raise FloatingPointError(f"{resident.data}, {readout}: loss {loss} in epoch {epoch + 1}")
        if loss < lowest:
            lowest, found, kept = loss, epoch, copy.deepcopy(network.state_dict())
        if epoch - found >= settings.patience:
            break
    network.load_state_dict(kept)
    return network


def node_by_node(network: Network, resident: Resident, settings: Settings) -> GIN:
    """The same network on PyG's batches: it works on every node for itself, by layers that keep bits."""
    plain = GIN(resident.x.shape[1], resident.classes, "mean", settings.width, settings.rounds)
    for convolution, layer in zip(plain.convolutions, network.rounds, strict=True):
        convolution.get_submodule("nn").load_state_dict(layer.get_submodule("mlp").state_dict())
    for name in ("readout", "head"):
        plain.add_module(name, network.get_submodule(name))
    return plain.to(resident.x.device).eval()
