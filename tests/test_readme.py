"""The README tells the truth: its Python runs, its commands and links exist."""

import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXPERIMENTS = (ROOT / "docs" / "experiments.md").read_text()


def test_python_blocks_run_in_order():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 4
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert namespace["out"].shape == (2, 24)
    assert namespace["pool"](namespace["x"], namespace["batch"]).equal(namespace["out"])
    orders = lambda nodes: [torch.randperm(nodes) for _ in range(3)]  # noqa: E731
    namespace["test_model"](namespace["pool"], namespace["x"], namespace["batch"], orders)


def test_the_first_page_is_short():
    assert len(README.splitlines()) <= 130


def test_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)  # code, not prose
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert f"\n{target}:" in makefile
    command = [sys.executable, "-m", "experiments", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    commands = set(re.findall(r"python -m experiments ([\w-]+)", EXPERIMENTS))
    assert commands >= {"collisions", "tower", "copies", "demo"}
    assert all(command in run.stdout for command in commands)


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            exists = target.startswith("https://") or (page.parent / target).exists()
            assert exists, f"{page.name} links to {target}"
