"""What can be learned from pooled vectors that are known before training, as those of node labels are.

Graphs with one vector get one answer, so all graphs are one table: the distinct vectors, and how many graphs
of every class each of them has. A step works on the whole table, for all copies of a network at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn

from datasets.splits import Split
from experiments.learning.networks import StackedLinear
from experiments.learning.training import Values

WAVES, FREQUENCIES, WIDE = 512, (0.3, 300.0), 128  # of the network that is to reach the ceiling
RATES, SEEDS, CHECKED = (0.01, 0.003), 2, 25
WIDTH, RATE, PATIENCE, TREES = 32, 0.01, 60, 60  # of those that are judged on held-out graphs


@dataclass(frozen=True)
class Pooled:
    """The pooled vectors of a set: the distinct ones, float64 [R, F], which of them each graph has, classes.

    Two vectors are one if they have the same bits.
    """

    vectors: Tensor
    of: Tensor
    y: Tensor
    classes: int

    @classmethod
    def of_graphs(cls, vectors: Tensor, y: Tensor, classes: int) -> Pooled:
        """Take the vector of every graph, [B, F], and its class, [B]."""
        distinct, of = vectors.unique(dim=0, return_inverse=True)
        return cls(distinct, of, y, classes)

    def counts(self, positions: Sequence[int]) -> Tensor:
        """Count the graphs at these positions by vector and class, float32 [R, C]."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        cell = self.of[chosen] * self.classes + self.y[chosen]
        cells = len(self.vectors) * self.classes
        return cell.bincount(minlength=cells).view(-1, self.classes).float()


def reach(pooled: Pooled, goal: int, seed: int, steps: int) -> dict[str, float]:
    """Train on all graphs until `goal` of them are answered right, for `steps` steps at most.

    A stack of networks, one for each rate and seed: random waves of the standardised vector (Rahimi and Recht
    2007), at which vectors that lie close together are far apart, and two layers that are trained.
    Returns the greatest number of right answers of one network so far, and the steps.
    """
    torch.manual_seed(seed)
    copies, table = len(RATES) * SEEDS, pooled.counts(range(len(pooled.y)))
    waves = random_waves(standardised(pooled.vectors, table.sum(1)[None])[0])
    network = nn.Sequential(
        StackedLinear(WAVES, WIDE, copies), nn.ReLU(), StackedLinear(WIDE, pooled.classes, copies)
    )
    values = Values(network, [rate for rate in RATES for _ in range(SEEDS)])
    rows, best, step = waves.repeat(copies, 1), 0, 0
    while step < steps and best < goal:
        logits = network(rows).view(copies, *table.shape)
        values.step(losses(logits, table))
        step += 1
        if step % CHECKED == 0 or step == steps:
            best = max(best, int(right(logits.argmax(dim=2), table).max()))
        if step % max(1, steps // 6) == 0:
            values.halve()
    return {"right": best, "steps": step}


def random_waves(x: Tensor) -> Tensor:
    """Map x [R, F] to `WAVES` sines along random directions, of frequencies of all orders, float32."""
    low, high = map(math.log, FREQUENCIES)
    frequency = torch.exp(low + (high - low) * torch.rand(WAVES, dtype=torch.float64))
    direction = nn.functional.normalize(torch.randn(x.shape[1], WAVES, dtype=torch.float64), dim=0)
    phase = 2 * math.pi * torch.rand(WAVES, dtype=torch.float64)
    return torch.sin(x @ direction * frequency + phase).float()


def perceptrons(pooled: Pooled, splits: Sequence[Split], seed: int, steps: int = 300) -> Tensor:
    """Train a perceptron of two hidden layers on each split, and return its answers for all vectors, [K, R].

    Vectors are standardised on the training graphs; Adam on all of them; the step with the lowest loss on the
    hold-out counts.
    """
    torch.manual_seed(seed)
    known, watched = (
        torch.stack([pooled.counts(part) for part in parts])
        for parts in zip(*((split.train, split.validation) for split in splits), strict=True)
    )
    x = standardised(pooled.vectors, known.sum(dim=2)).float()
    copies, vectors, features = x.shape
    layers = [
        StackedLinear(before, after, copies)
        for before, after in ((features, WIDTH), (WIDTH, WIDTH), (WIDTH, pooled.classes))
    ]
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    lowest, chosen = torch.full((copies,), torch.inf), torch.zeros(copies, dtype=torch.int64)
    answers = torch.zeros(copies, vectors, dtype=torch.int64)
    for step in range(steps):
        logits = network(x.view(-1, features)).view(copies, vectors, -1)
        with torch.no_grad():
            loss = losses(logits, watched)
            better = loss < lowest
            lowest, chosen[better] = torch.where(better, loss, lowest), step
            answers = torch.where(better[:, None], logits.argmax(dim=2), answers)
        if step - int(chosen.max()) >= PATIENCE:
            break
        optimiser.zero_grad()
        losses(logits, known).sum().backward()
        optimiser.step()
    return answers


def forests(pooled: Pooled, splits: Sequence[Split], seed: int) -> Tensor:
    """Fit a forest on each split, the hold-out included, and return its answers for all vectors, [K, R]."""
    vectors, y = pooled.vectors.numpy(), pooled.y.numpy()
    of = pooled.of.numpy()
    answers = []
    for place, split in enumerate(splits):
        seen = [*split.train, *split.validation]
        forest = RandomForestClassifier(TREES, random_state=seed + place).fit(vectors[of[seen]], y[seen])
        answers.append(torch.from_numpy(forest.predict(vectors)))
    return torch.stack(answers)


def standardised(vectors: Tensor, weight: Tensor) -> Tensor:
    """Scale vectors [R, F] to mean 0 and deviation 1 under each row of weights [K, R]; float64 [K, R, F]."""
    share = weight.double() / weight.sum(dim=1, keepdim=True).double()
    centred = vectors - (share @ vectors)[:, None]
    deviation = (share[:, None] @ centred.square()).sqrt()
    return centred / deviation.where(deviation > 1e-9, 1)


def losses(logits: Tensor, table: Tensor) -> Tensor:
    """Return the mean cross-entropy of each copy, [K], of logits [K, R, C], over counts [..., R, C]."""
    each = -(logits.log_softmax(dim=2) * table).sum(dim=(1, 2))
    return each / table.sum(dim=(-1, -2))


def right(answers: Tensor, table: Tensor) -> Tensor:
    """How many of the graphs counted in [R, C] are answered right by each copy, [K], of answers [K, R]."""
    return table.expand(len(answers), -1, -1).gather(2, answers[:, :, None]).sum(dim=(1, 2))
