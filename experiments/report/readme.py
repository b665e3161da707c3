"""The results in the README: a short table of what came out, between two markers."""

from __future__ import annotations

import os
from pathlib import Path

from experiments.console import UserError, writing
from experiments.report.page import cells_of, collect, typeset

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def rewrite(path: Path, folder: Path) -> None:
    """Write the table of all sections that say something in few words; the rest of the file stays.

    Raises `UserError` where the file does not have each marker once, in order.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise UserError(f"--readme {path}: {problem.strerror}.") from problem
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise UserError(f"--readme {path}: expected {BEGIN} and then {END}, once each.")
    with writing(path):
        path.write_text(f"{before}{BEGIN}\n{table(path, folder)}{END}{after}", encoding="utf-8")


def table(path: Path, folder: Path) -> str:
    """Claim, verdict and numbers of every section that has them, and where these come from."""
    entries = collect(folder)
    lines = ["| claim | verdict | numbers |", "|---|---|---|"]
    sets: dict[str, None] = {}
    for entry in entries:
        if entry.section and entry.section.headline:
            sets |= dict.fromkeys(entry.section.data)
            said = entry.section.headline
            lines.append(f"| {cells_of([entry.words['short'], said['verdict'], typeset(said['numbers'])])} |")
    page = os.path.relpath(folder / "report.md", path.parent)
    where = f"On {', '.join(sets)}. Tables, figures, caveats and the commands behind them: [report]({page})."
    return "\n".join([*lines, "", where, ""])
