"""Rows of results in `NAME.jsonl.gz`: append, resume after a kill, and where every number comes from.

A row is one number. A file is a sequence of gzip members, one for each time that rows were appended, so that
a kill leaves whole members and at most a torn one at the end, which is cut off. Several processes may append
to one file: each takes over what the others have written. Three kinds of lines:

    {"stamp": {...}}        a run: commit, whether the tree was dirty, versions, device, day, code
    {"run": 0, ...}         a row that was measured in the run of that number
    {"view": {...}}         a command that ended: its options, notes and figures, and which rows it is made of

A row still counts if measuring it again would give the same number: the same work (data, readout, metric,
seed, fold and the experiment's own settings), by the same code (see `experiments.digest`) on the same
versions and device. Rows of other code stay in the file as history.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import platform
import subprocess
import tomllib
import zlib
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
ENDING = ".jsonl.gz"
SAME = ("code", "versions", "device")  # what two stamps share if their rows are interchangeable
WORK = {"data", "readout", "metric", "seed", "fold"}
MEMBER = 16 + zlib.MAX_WBITS  # for zlib: a gzip header


class Records:
    """The lines of a file in memory: rows, in `row["run"]` the stamp of each, and the views."""

    def __init__(self, path: Path) -> None:
        """Start without lines."""
        self.path = path
        self.stamps: list[dict[str, Any]] = []
        self.rows: list[Row] = []
        self.views: list[dict[str, Any]] = []
        self.place: dict[str, int] = {}  # of every row, by its identity

    def take(self, content: bytes) -> int:
        """Take over the lines of whole gzip members; returns the bytes that these have."""
        taken = 0
        while taken < len(content):
            member = zlib.decompressobj(MEMBER)
            try:
                text = member.decompress(content[taken:])
            except zlib.error as problem:
                raise UserError(f"{self.path} is no file of results: move it away.") from problem
            if not member.eof:
                break
            for line in text.splitlines():
                self._add(line)
            taken = len(content) - len(member.unused_data)
        return taken

    def _add(self, line: bytes) -> None:
        """Take over one line."""
        try:
            found = json.loads(line)
            if "stamp" in found:
                self.stamps.append(dict(found["stamp"]))
            elif "view" in found:
                self.views.append(dict(found["view"]))
            else:
                row = {**found, "run": self.stamps[found["run"]]}
                if not isinstance(row["value"], int | float) or not row.keys() >= WORK:
                    raise ValueError
                self.place[identity(row)] = len(self.rows)
                self.rows.append(row)
        except (ValueError, TypeError, LookupError) as problem:
            number = len(self.stamps) + len(self.rows) + len(self.views) + 1
            raise UserError(f"{self.path}, line {number} is no result: move the file away.") from problem

    @property
    def view(self) -> dict[str, Any] | None:
        """What the last command that ended says of itself; `rows` are those that it is made of."""
        if not self.views:
            return None
        view = self.views[-1]
        return view | {"rows": [row for first, last in view["rows"] for row in self.rows[first : last + 1]]}


class RowLog:
    """The rows of one experiment in `folder/NAME.jsonl.gz`, to be continued."""

    def __init__(
        self,
        folder: Path,
        name: str,
        device: str = "cpu",
        code: str = "",
        fingerprints: Mapping[str, str] | None = None,
    ) -> None:
        """Open the file, mend its end, and read what is there already.

        `code` is a digest of what measures, `fingerprints` are those of sets whose content may change under
        one name; these are part of the work.
        """
        self.path = path_of(folder, name)
        self._fingerprints = fingerprints or {}
        self._stamp = {"code": code, "versions": versions(), "device": device}
        self._known = Records(self.path)
        self._read = 0  # bytes of the file
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            with self._alone():
                pass

    def measure(
        self, work: Mapping[str, Any], metrics: Iterable[str], compute: Callable[[], Mapping[str, Any]]
    ) -> list[Row]:
        """Rows of this work, one a metric; `compute` runs only when one of them is missing.

        `work` names data, readout, seed and fold (`None` where there is none) and the settings.
        """
        if (rows := self.known(work, metrics)) is not None:
            return rows
        self.add([(work, metrics, compute())])
        return self.known(work, metrics) or []

    def add(self, found: Iterable[tuple[Mapping[str, Any], Iterable[str], Mapping[str, Any]]]) -> None:
        """Write what is not there yet of works, their metrics and values, at once."""
        with writing(self.path), self._alone():
            run, lines = self._begin_run()
            for work, metrics, values in found:
                for row in self._wanted(work, metrics):
                    if identity(row) not in self._known.place:
                        lines.append({**row, "run": run, "value": values[row["metric"]]})
            self._append(lines)

    def known(self, work: Mapping[str, Any], metrics: Iterable[str]) -> list[Row] | None:
        """Rows of this work, or None where one of them is missing."""
        names = [identity(row) for row in self._wanted(work, metrics)]
        if any(name not in self._known.place for name in names):
            with writing(self.path), self._alone():
                pass  # another process may have them by now
        places = [self._known.place.get(name) for name in names]
        return None if None in places else [self._known.rows[place] for place in places if place is not None]

    def _wanted(self, work: Mapping[str, Any], metrics: Iterable[str]) -> list[Row]:
        """Rows of this work without their values."""
        if found := self._fingerprints.get(work["data"]):
            work = {**work, "fingerprint": found}
        return [{**work, "metric": metric, "run": self._stamp} for metric in metrics]

    def finish(self, rows: Iterable[Row], view: Mapping[str, Any]) -> None:
        """Write what a command that ended is made of, unless the last one was the same."""
        view = {**view, "rows": ranges(self._known.place[identity(row)] for row in rows)}
        with writing(self.path), self._alone():
            if self._known.views[-1:] != [view]:
                self._append([{"view": view}])

    @property
    def rows(self) -> list[Row]:
        """All rows of the file that are known, those of other code, too."""
        return self._known.rows

    def _begin_run(self) -> tuple[int, list[dict[str, Any]]]:
        """The number of this process's stamp, and the line that is missing where there is none yet."""
        now = {"commit": commit(), "dirty": dirty(), "date": datetime.now(UTC).date().isoformat()}
        stamp = self._stamp | now
        if stamp in self._known.stamps:
            return self._known.stamps.index(stamp), []
        return len(self._known.stamps), [{"stamp": stamp}]

    def _append(self, lines: Sequence[object]) -> None:
        """One gzip member in one write: a kill leaves it whole or torn, and never half of a row."""
        text = "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in lines)
        content = gzip.compress(text.encode(), mtime=0)
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
        """Read what was added to the file, and drop a torn member at its end."""
        content = os.pread(self._file, os.fstat(self._file).st_size - self._read, self._read)
        taken = self._known.take(content)
        self._read += taken
        if taken < len(content):
            os.ftruncate(self._file, self._read)

    def __enter__(self) -> RowLog:
        """Open in `with RowLog(...) as log`."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        os.close(self._file)


def path_of(folder: Path, name: str) -> Path:
    """Where an experiment has its rows."""
    return folder / f"{name.replace('-', '_')}{ENDING}"


def identity(row: Row) -> str:
    """What makes two rows the same result: the work, the code, the versions and the device."""
    same = {key: value for key, value in row.items() if key != "value"}
    same["run"] = {key: row["run"][key] for key in SAME}
    return json.dumps(same, sort_keys=True)


def ranges(places: Iterable[int]) -> list[list[int]]:
    """Places in their order as [first, last] of consecutive ones."""
    found: list[list[int]] = []
    for place in places:
        if found and place == found[-1][1] + 1:
            found[-1][1] = place
        else:
            found.append([place, place])
    return found


def read(path: Path) -> Records:
    """All that a file has, but for a torn end."""
    records = Records(path)
    records.take(path.read_bytes())
    return records


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, in the order they were measured."""
    return read(path).rows


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
def commit() -> str:
    """The commit of this clone, or "unknown" outside of one."""
    return git("rev-parse", "HEAD") or "unknown"


@cache
def dirty() -> bool:
    """Whether tracked files differ from the commit."""
    return bool(git("status", "--porcelain", "--untracked-files=no"))


def git(*arguments: str) -> str:
    """What git answers, or nothing."""
    answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def values(rows: Iterable[Row], **wanted: object) -> list[Any]:
    """The values of the rows that fulfil the conditions, in their order."""
    return [row["value"] for row in rows if wanted.items() <= row.items()]


def pick(rows: Iterable[Row], **wanted: object) -> Any:
    """The value of the one row that fulfils the conditions."""
    found = values(rows, **wanted)
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows with {wanted}, where there should be one")
    return found[0]


def average(rows: Iterable[Row], **wanted: object) -> float:
    """The mean value of the rows that fulfil the conditions, over folds, seeds and whatever else differs."""
    return mean(values(rows, **wanted))


def present(rows: Iterable[Row], name: str, **wanted: object) -> list[Any]:
    """The values of a field where it is there and the conditions are fulfilled, in the order of the rows."""
    return list(dict.fromkeys(row[name] for row in rows if name in row and wanted.items() <= row.items()))
