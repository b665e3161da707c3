"""Predicted times: counts of instructions over what the pipes of a GPU take in a clock.

A prediction ignores latency, caches and launches: it is what no kernel of these instructions can beat. The
weights are how many instructions of the hardware an instruction of PTX becomes, and which pipe takes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

PIPES = ("issue", "alu", "fp64", "memory", "convert")
FREE = {"issue": 0.3}  # mostly renamed away
OF_64_BITS = {"max": 4, "min": 4, "mul": 4, "mad": 5, "shl": 2.5, "shr": 2.5}
SPECIAL = {  # expansions of an instruction, by operation and type
    ("div", "f64"): {"issue": 28, "fp64": 11, "alu": 6, "convert": 1},
    ("sqrt", "f64"): {"issue": 24, "fp64": 9, "alu": 6, "convert": 1},
    ("abs", "f64"): FREE,
    ("neg", "f64"): FREE,
    ("max", "f64"): {"issue": 3, "fp64": 1, "alu": 2},
    ("min", "f64"): {"issue": 3, "fp64": 1, "alu": 2},
    ("div", "64"): {"issue": 75, "alu": 60, "convert": 2},
    ("rem", "64"): {"issue": 75, "alu": 60, "convert": 2},
    ("div", "32"): {"issue": 20, "alu": 12, "convert": 2},
    ("rem", "32"): {"issue": 20, "alu": 12, "convert": 2},
}


@dataclass(frozen=True)
class Chip:
    """Multiprocessors, GHz, GB/s of memory, and warp instructions that a multiprocessor takes in a clock."""

    processors: int
    clock: float
    bandwidth: float
    fp64: float
    convert: float
    warps: int  # that fit at most
    alu: float = 2
    issue: float = 4
    memory: float = 1

    def microseconds(self, cost: Mapping[str, float], bytes_moved: float) -> dict[str, float]:
        """The time of each pipe, and of memory, if it alone decided."""
        rate = self.processors * self.clock * 1e3
        times = {pipe: cost.get(pipe, 0) / getattr(self, pipe) / rate for pipe in PIPES}
        return times | {"bandwidth": bytes_moved / self.bandwidth / 1e3}

    def resident_warps(self, registers: int, warps: int) -> int:
        """How many warps a multiprocessor holds, if registers decide."""
        of_a_program = -(-registers * 32 // 256) * 256 * warps
        return min(65536 // of_a_program, 32, self.warps // warps) * warps


CHIPS = {
    "H100": Chip(132, 1.75, 3000, fp64=2, convert=0.5, warps=64),
    "RTX 4090": Chip(128, 2.5, 950, fp64=2 / 32, convert=2 / 32, warps=48),
}


def cost_of(counts: Mapping[str, float]) -> Counter[str]:
    """What warp instructions of PTX cost each pipe."""
    total: Counter[str] = Counter()
    for operation, number in counts.items():
        for pipe, weight in weights(operation).items():
            total[pipe] += weight * number
    return total


def weights(operation: str) -> Mapping[str, float]:
    """The cost of an instruction such as add.s64."""
    name, *parts = operation.split(".")
    kind = parts[-1] if parts else ""
    floats = any(part.startswith(("f16", "f32", "f64", "bf16")) for part in parts)
    bits = "64" if kind.endswith("64") else "32"
    if name == "bra":
        return {"issue": 1}
    if (
        name in ("mov", "ret", "cvta")
        or (name == "cvt" and not floats)
        or (name == "ld" and "param" in parts)
    ):
        return FREE
    if name in ("ld", "st", "shfl", "ldmatrix", "stmatrix", "atom", "red"):
        return {"issue": 1, "memory": 1}
    if name == "redux":
        return {"issue": 1, "memory": 2}
    if name in ("bar", "barrier"):
        return {"issue": 1}
    if found := SPECIAL.get((name, kind)) or (None if floats else SPECIAL.get((name, bits))):
        return found
    if kind == "f64" and name in ("add", "sub", "mul", "fma", "setp"):
        return {"issue": 1, "fp64": 1}
    if name == "cvt":
        return {"issue": 1, "convert": 1}
    if name == "selp":
        return dict.fromkeys(("issue", "alu"), 2 if bits == "64" else 1)
    if bits == "64":
        return dict.fromkeys(("issue", "alu"), OF_64_BITS.get(name, 2))
    if name in ("mad", "mul"):
        return {"issue": 1.5, "alu": 0.5}
    return {"issue": 1, "alu": 1}
