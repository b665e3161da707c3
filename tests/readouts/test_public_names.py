"""What others build on stays: names, operators, state_dict keys, options; compared with an earlier list."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import Linear

from readouts import nn

LIST = Path(__file__).parent / "public_names.json"
ROOT = Path(__file__).parents[2]
PACKAGES = ("readouts", "readouts.attribution", "readouts.distributed", "readouts.nn", "readouts.testing")
COMMANDS = ("readouts", "readouts check", "readouts conformance", "readouts info")
OPERATORS = (
    "expand_ptr",
    "group",
    "midpoint",
    "ranks",
    "reduce",
    "reduce_backward",
    "select",
    "trimmed_mean",
    "trimmed_mean_backward",
)
MODULES = {
    "AttentionReadout": lambda: nn.AttentionReadout(Linear(4, 1), Linear(4, 3)),
    "DeepSetsReadout": lambda: nn.DeepSetsReadout(Linear(4, 2), Linear(2, 3)),
    "MultiReadout": lambda: nn.MultiReadout(["sum", nn.SoftmaxReadout(learn=True)]),
    "MultiheadAttentionReadout": lambda: nn.MultiheadAttentionReadout(4, 2, layer_norm=True),
    "PartialReadout": lambda: nn.PartialReadout(nn.SoftmaxReadout(learn=True), 0.5),
    "PowerMeanReadout": lambda: nn.PowerMeanReadout(learn=True, channels=4),
    "QuantileReadout": lambda: nn.QuantileReadout([0.2, 0.8], learnable=True),
    "Set2SetReadout": lambda: nn.Set2SetReadout(4, 2),
    "SoftmaxReadout": lambda: nn.SoftmaxReadout(learn=True),
    "SqueezeExcitation": lambda: nn.SqueezeExcitation(8),
    "WeightedMeanReadout": lambda: nn.WeightedMeanReadout(Linear(4, 1)),
}


def options_of(command):
    run = subprocess.run(
        [sys.executable, "-m", *command.split(), "--help"], capture_output=True, text=True, cwd=ROOT
    )
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w-]*", run.stdout)))


def plugin_names():
    text = (ROOT / "readouts_pytest.py").read_text()
    return sorted(
        set(re.findall(r"--readouts-[\w-]+", text)) | set(re.findall(r"@pytest.fixture.*\s+def (\w+)", text))
    )


def found():
    return {
        "names": {package: importlib.import_module(package).__all__ for package in PACKAGES},
        "operators": {name: str(getattr(torch.ops.readouts, name).default._schema) for name in OPERATORS},
        "state_dict": {
            name: {key: list(value.shape) for key, value in make().state_dict().items()}
            for name, make in MODULES.items()
        },
        "options": {command: options_of(command) for command in COMMANDS},
        "pytest": plugin_names(),
    }


@pytest.fixture(scope="module")
def actual():
    return found()


@pytest.mark.parametrize("part", ["names", "operators", "state_dict", "options", "pytest"])
def test_nothing_public_has_gone(actual, part):
    expected = json.loads(LIST.read_text())[part]
    assert actual[part] == expected
