"""Rows of a run, each on the disk as soon as it is made, and the time that is left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.console import say, writing

FILE = "gpu.jsonl"
MOST = 400  # characters of a problem


class Run:
    """A run that ends `budget` seconds after its start; `row` writes a line of JSON."""

    def __init__(self, folder: Path, budget: float, device: str) -> None:
        self.device, self.budget = device, budget
        self._start = time.monotonic()
        self.path = folder / FILE
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def left(self, share: float = 1) -> float:
        """Seconds until a share of the budget is spent."""
        return share * self.budget - self.seconds

    def row(self, stage: str, **fields: Any) -> None:
        """Write a row, and print it."""
        line = json.dumps({"stage": stage, "at": round(self.seconds, 1), **fields}, default=str)
        with writing(self.path):
            print(line, file=self._file, flush=True)
        say(line)

    def attempt(
        self, stage: str, fields: dict[str, Any], compute: Callable[[], dict[str, Any] | None]
    ) -> dict[str, Any]:
        """Write a row of what is computed, or of the problem, and return it."""
        begun = self.seconds
        try:
            found = compute() or {}
        except Exception as problem:  # whatever goes wrong on a new device is a result
            found = {"error": f"{type(problem).__name__}: {problem}"[:MOST]}
        self.row(stage, **fields, **found, seconds=round(self.seconds - begun, 3))
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()
