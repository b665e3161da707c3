"""Results as JSON lines: a row is one number, and a rerun continues where a kill struck.

Rows are only ever appended, and by several processes at a time if need be: each takes over what the others
have written. A row still counts if measuring again would give the same number:
the same work (experiment, data, readout, metric, seed, fold and the experiment's own settings),
done by the same code on the same versions and device. *Code* is a digest of the sources that the
number depends on, so that a commit which only touches the documentation makes nothing stale, and an
edit that was never committed does. Rows of other code stay in the file as history; nobody reads them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.console import UserError, writing

Row = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
OUTCOME = ("value", "commit", "date")
OUTCOME_AND_WORK = {*OUTCOME, "experiment", "data", "readout", "metric", "seed", "fold", "versions", "device"}


class RowLog:
    """The rows of one experiment in `folder/<experiment>.jsonl`, to be continued."""

    def __init__(self, folder: Path, experiment: str, device: str = "cpu") -> None:
        """Open the file, mend its end, and read what is there already."""
        self.path = folder / f"{experiment}.jsonl"
        self._stamp = {
            "experiment": experiment,
            "code": code_digest(experiment),
            "versions": versions(),
            "device": device,
        }
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._known: dict[str, Row] = {}
            self._read = 0  # bytes of the file
            with self._alone():
                pass

    def measure(
        self, work: Mapping[str, Any], metrics: Iterable[str], compute: Callable[[], Mapping[str, Any]]
    ) -> list[Row]:
        """Rows of this work, one a metric; `compute` runs only when one of them is missing.

        `work` names data, readout, seed and fold (`None` where there is none) and the settings.
        """
        wanted = [{**self._stamp, **work, "metric": metric} for metric in metrics]
        if not all(identity(row) in self._known for row in wanted):
            with writing(self.path), self._alone():
                pass  # another process may have them by now
        if not all(identity(row) in self._known for row in wanted):
            values = compute()
            self._append([{**row, "value": values[row["metric"]]} for row in wanted])
        return [self._known[identity(row)] for row in wanted]

    def _append(self, rows: Sequence[Row]) -> None:
        """One write for all lines that are new: a kill leaves whole lines and at most one torn one."""
        when = {"commit": commit(), "date": datetime.now(UTC).isoformat(timespec="seconds")}
        with writing(self.path), self._alone():
            new = [row | when for row in rows if identity(row) not in self._known]
            content = "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in new).encode()
            written = os.write(self._file, content)
            if written < len(content):
                raise OSError(f"only {written} of {len(content)} bytes fit")
            os.fsync(self._file)
            self._take_over()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from writing, and know what they have written."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._take_over()
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _take_over(self) -> None:
        """Read the lines that were added to the file, and drop what a kill left after the last newline."""
        content = os.pread(self._file, os.fstat(self._file).st_size - self._read, self._read)
        whole = content[: content.rfind(b"\n") + 1]
        self._known |= {identity(row): row for row in rows_of(self.path, whole)}
        self._read += len(whole)
        if whole != content:
            os.ftruncate(self._file, self._read)

    def __enter__(self) -> RowLog:
        """Open in `with RowLog(...) as log`."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        os.close(self._file)


def identity(row: Row) -> str:
    """What makes two rows the same result: everything but the outcome."""
    return json.dumps({key: value for key, value in row.items() if key not in OUTCOME}, sort_keys=True)


def read_rows(path: Path) -> Iterator[Row]:
    """All rows of a file, in the order they were measured."""
    return rows_of(path, path.read_bytes())


def rows_of(path: Path, content: bytes) -> Iterator[Row]:
    """The rows of a file from its content, or from what was added to it."""
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        value = row.get("value") if isinstance(row, dict) else None
        if not isinstance(value, int | float) or not OUTCOME_AND_WORK.issubset(row):
            raise UserError(f"{path}, line {number} is no result row: move the file away or mend the line.")
        yield row


@cache
def versions() -> dict[str, str]:
    """The versions that a number may depend on; that of `readouts` is the clone's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "pyg": metadata.version("torch_geometric"),
        "scikit-learn": metadata.version("scikit-learn"),
        "readouts": project["version"],
    }


@cache
def code_digest(experiment: str) -> str:
    """A digest of the library, the data sets, the models and the experiment itself."""
    sources = [
        *sorted((ROOT / "readouts").rglob("*.py")),
        *sorted((ROOT / "datasets").rglob("*.py")),
        ROOT / "experiments" / "models.py",
        ROOT / "experiments" / f"{experiment}.py",
        *sorted((ROOT / "experiments" / experiment).rglob("*.py")),
    ]
    digest = hashlib.sha256()
    for source in sources:
        if source.exists():
            digest.update(f"{source.relative_to(ROOT)}\0".encode() + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def commit() -> str:
    """The commit of this clone, or "unknown" outside of one."""
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() if answer.returncode == 0 else "unknown"


def pick(rows: Iterable[Row], **conditions: Any) -> Any:
    """The value of the one row that fulfils the conditions."""
    values = [row["value"] for row in rows if conditions.items() <= row.items()]
    if len(values) != 1:
        raise LookupError(f"{len(values)} rows with {conditions}, where there should be one")
    return values[0]


def average(rows: Iterable[Row], **wanted: object) -> float:
    """The mean value of the rows that fulfil the conditions, over folds, seeds and whatever else differs."""
    return mean(row["value"] for row in rows if wanted.items() <= row.items())


def present(rows: Iterable[Row], name: str, **wanted: object) -> list[Any]:
    """The values of a field where it is there and the conditions are fulfilled, in the order of the rows."""
    return list(dict.fromkeys(row[name] for row in rows if name in row and wanted.items() <= row.items()))
