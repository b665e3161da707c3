"""The report: what came of every experiment, from rows, as Markdown, as one HTML file, and as CSV.

Everything is made anew from the rows that the last command of each experiment was made of; figures are those
that it drew. Nothing is measured.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markdown_it import MarkdownIt

from experiments import records
from experiments.console import Table, UserError, writing
from experiments.experiment import Drawing, Experiment, Finding, Published, told, verdict
from experiments.records import Row
from experiments.run import RUN

TITLE = "What graph readouts can and cannot see"
LEAD = (
    "Sum, mean and max turn the nodes of a graph into one vector. Each section puts one claim about them to "
    "the test, and says what came out, for the claim or against it."
)
KINDS = {
    "finding": "**Findings** could have come out otherwise.",
    "check": "**Checks** are theorems, counts and tests of the implementation.",
}
OLDER = {"rows": [], "older": True}
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
MARKUP = re.compile(r"[\\`*<|]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
TYPESET = (
    (re.compile(r"(?<![\w.)-])-(?=\.?\d)"), "\N{MINUS SIGN}"),
    (re.compile(r"(?<=\w)'(?=\w)"), "\N{RIGHT SINGLE QUOTATION MARK}"),
    (re.compile(r"(?<=\d) %"), "\N{NARROW NO-BREAK SPACE}%"),
)
Address = Callable[[Path, str], str]  # of a file, whose text may not be written yet


@dataclass(frozen=True)
class Section:
    """An experiment, and what its last command was made of; None if it was not run."""

    experiment: Experiment
    view: Mapping[str, Any] | None

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of the command."""
        return self.view["rows"] if self.view else []

    @property
    def command(self) -> str:
        """What makes this section, once more or for the first time."""
        if self.view:
            return str(self.view["command"])
        return " ".join(["python -m experiments", self.experiment.name, *self.experiment.example])

    @cached_property
    def findings(self) -> list[Finding]:
        """What came out."""
        return list(self.experiment.findings(self.rows)) if self.rows else []

    @property
    def kind(self) -> str:
        """Whether the claim is a check or a finding."""
        return "check" if {found.kind for found in self.findings if found.main} == {"check"} else "finding"

    @cached_property
    def headline(self) -> tuple[str, str, str]:
        """Claim, verdict and numbers."""
        return self.experiment.claim, verdict(self.findings), self.experiment.numbers(self.rows)

    @cached_property
    def tables(self) -> list[Table]:
        """The tables of the experiment."""
        return list(self.experiment.tables(self.rows)) if self.rows else []

    @cached_property
    def is_current(self) -> bool:
        """Whether all rows were measured by the code as it is."""
        measured = {(row["run"]["device"], row["run"]["code"]) for row in self.rows}
        return all(self.experiment.code(device) == code for device, code in measured)


def collect(experiments: Iterable[Experiment], folder: Path) -> list[Section]:
    """A section for every experiment; raises `UserError` where none has ended here."""
    found = []
    for experiment in experiments:
        path = records.path_of(folder, experiment.name)
        view = records.read(path).view if path.exists() else None
        section = Section(experiment, view)
        found.append(section if is_readable(section) else Section(experiment, {**(view or {}), **OLDER}))
    if not any(section.view for section in found):
        expected = f"expected rows of an experiment that ended (*{records.ENDING}), got none"
        raise UserError(f"--out {folder}: {expected}; run one first.")
    return found


def is_readable(section: Section) -> bool:
    """Return whether the rows give tables and findings; those of older code may have another form."""
    if section.rows:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                _ = section.tables, section.headline
        except (LookupError, ValueError, RuntimeWarning):
            if section.is_current:
                raise
            return False
    return True


def write(experiments: Iterable[Experiment], folder: Path) -> list[Path]:
    """Write `report.html`, `report.md` and `tables/NAME-n.csv` into the folder that has the rows."""
    sections = collect(experiments, folder)
    path = folder / RUN
    run = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    page = html_page(sections, run, folder)

    def keep(file: Path, text: str) -> str:
        if text:
            with writing(file):
                file.write_text(text, encoding="utf-8")
        return file.relative_to(folder).as_posix()

    tables = folder / "tables"
    with writing(tables):
        tables.mkdir(exist_ok=True)
        for old in tables.glob("*.csv"):
            old.unlink()
    lines = [f"# {TITLE}", *head(sections, run)]
    for number, section in enumerate(sections, start=1):
        lines += [f'<a id="{section.experiment.name}"></a>', f"## {number}. {section.experiment.title}"]
        lines += body(section, folder, keep, plain)
    keep(folder / "report.html", page)
    keep(folder / "report.md", "\n\n".join(lines) + "\n")
    return [folder / "report.html", folder / "report.md", tables]


def head(sections: Sequence[Section], run: Mapping[str, Any] | None) -> Iterator[str]:
    """How the page came about, and all verdicts."""
    yield LEAD
    if run:
        quick = ", short trainings and few folds for a first look" if run["quick"] else ""
        yield (
            f"This page: {code_span(run['command'])}{quick}. Every section ends with the command that made "
            "it; one that differs was run again since."
        )
        yield from map(plain, run["notes"])
    yield from verdicts(sections, lambda section: f"[{section.headline[0]}](#{section.experiment.name})")


def verdicts(sections: Sequence[Section], claim: Callable[[Section], str]) -> Iterator[str]:
    """What came of all claims, findings and checks apart."""
    for kind, meaning in KINDS.items():
        asked = [section for section in sections if section.rows and section.kind == kind]
        if asked:
            yield meaning
            lines = ["| claim | verdict | numbers |", "|---|---|---|"]
            for section in asked:
                _, *said = section.headline
                lines.append(f"| {claim(section)} | {cells(said, lambda text: plain(typeset(text)))} |")
            yield "\n".join(lines)


def body(section: Section, folder: Path, address: Address, text: Callable[[str], str]) -> Iterator[str]:
    """The paragraphs of a section, in Markdown; `text` is how sentences and cells are written."""
    experiment, view, findings = section.experiment, section.view, section.findings
    yield experiment.theory
    if view is None:
        yield f"Not run. {code_span(section.command)} adds this section."
        return
    if "older" in view:
        yield f"Measured by older code, whose rows have another form. To repeat: {code_span(section.command)}"
        return
    if findings:
        _, word, numbers = section.headline
        yield f"**{section.kind.capitalize()}: {text(word)}.** {text(numbers)}"
        yield bullets(map(text, told(findings)))
    if view["refused"]:
        yield bullets(f"Left out, {text(name)}: {text(why)}" for name, why in view["refused"].items())
    yield f"**Source.** {experiment.source}"
    yield f"**Set-up.** {experiment.setup}"
    if view["notes"]:
        yield bullets(map(text, view["notes"]))
    for name in view["figures"]:
        drawing = drawn(name, experiment.drawings)
        yield f"![{drawing.alt}]({address(folder / f'{name}.png', '')})"
        yield drawing.caption
    works = [work for work in experiment.published if work.values.keys() & set(view["data"])]
    tables = [("", table) for table in section.tables]
    for work in works:
        said = f"{work.work}. {work.protocol} *Why they differ:* {work.why}"
        tables.append((said, beside(work, section.tables)))
    for number, (said, table) in enumerate(tables, start=1):
        if said:
            yield said
        file = folder / "tables" / f"{experiment.name}-{number}.csv"
        yield f"**{text(table.title)}** ([CSV]({address(file, as_csv(table))}))"
        yield markdown(table, text)
    yield "Caveats:"
    yield bullets(experiment.caveats)
    yield f"To repeat: {code_span(section.command)}"
    if section.rows:
        yield provenance(section)


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def markdown(table: Table, text: Callable[[str], str]) -> str:
    """A table in Markdown."""
    rule = ["---" if column < table.text_columns else "---:" for column in range(len(table.columns))]
    lines = [line for line in table.lines if line]
    whole = [[*line, *[""] * (len(rule) - len(line))] for line in lines]
    return "\n".join(
        [f"| {cells(table.columns, text)} |", f"|{'|'.join(rule)}|"]
        + [f"| {cells(line, text)} |" for line in whole]
    )


def drawn(name: str, drawings: Sequence[Drawing]) -> Drawing:
    """The words for the longest name that a file's own begins with, as tower-MUTAG with tower."""
    fitting = [drawing for drawing in drawings if name.startswith(drawing.name)]
    return max(fitting, key=lambda drawing: len(drawing.name), default=Drawing(name, f"Figure of {name}", ""))


def beside(work: Published, tables: Sequence[Table]) -> Table:
    """Published numbers, and for the same sets the cells of our tables that are nearest to them."""
    lines = [
        [data, value, " / ".join(ours(work, data, tables)) or "not run"]
        for data, value in work.values.items()
    ]
    return Table(f"{work.what}: published, and ours", ("set", "published", "ours"), lines)


def ours(work: Published, data: str, tables: Sequence[Table]) -> list[str]:
    """One number for each readout that is wanted; none where one is missing."""
    lines = [
        dict(zip(table.columns, line, strict=True))
        for table in tables
        for line in table.lines
        if line and line[0] == data
    ]
    found = []
    for readout in work.readouts:
        where = {"network": work.network, "readout": readout}
        found += [work.shown.format(**line) for line in lines if where.items() <= line.items()]
    return found if len(found) == len(work.readouts) else []


def provenance(section: Section) -> str:
    """Where numbers come from: rows, what these say of their runs, and whether the code is as it was."""
    stamps = list({id(row["run"]): row["run"] for row in section.rows}.values())
    days = sorted(stamp["date"] for stamp in stamps)
    versions: dict[str, dict[str, None]] = {}
    for stamp in stamps:
        for package, version in stamp["versions"].items():
            versions.setdefault(package, {})[version] = None
    commits = sorted({stamp["commit"] + (" with changes" if stamp["dirty"] else "") for stamp in stamps})
    devices = sorted({str(row.get("machine", row["run"]["device"])) for row in section.rows})
    seeds = sorted({row["seed"] for row in section.rows} - {None})
    name = records.path_of(Path(), section.experiment.name).name
    when = " to ".join(dict.fromkeys(days[:1] + days[-1:]))
    used = ", ".join(f"{package} {plain(', '.join(found))}" for package, found in versions.items())
    return (
        f"{len(section.rows)} rows in `{name}`, measured {when} on "
        f"{plain(', '.join(devices))}; sets {plain(', '.join(section.view['data'])) or 'none'}; seeds "  # type: ignore[index]
        f"{', '.join(map(str, seeds)) or 'none'}; commit {', '.join(commits)}; "
        f"{used}. Measured by "
        f"{'the code as it is' if section.is_current else 'code that has changed since'}."
    )


def html_page(sections: Sequence[Section], run: Mapping[str, Any] | None, folder: Path) -> str:
    """The same paragraphs as one file that needs no network: style, figures and CSV are inside."""
    render = MarkdownIt("commonmark", {"html": False}).enable("table")
    render.validateLink = lambda url: True  # type: ignore[method-assign]  # names are escaped, addresses ours

    def embedded(file: Path, text: str) -> str:
        if file.suffix == ".csv":
            return f"data:text/csv;charset=utf-8,{quote(text)}"
        try:
            return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
        except OSError as problem:
            raise UserError(f"Cannot read {file}: repeat the experiment that drew it.") from problem

    def shown(paragraphs: Iterable[str]) -> str:
        text: str = render.render("\n\n".join(paragraphs))
        text = text.replace("<table>", '<div class="scroll" tabindex="0"><table>')
        return text.replace("</table>", "</table></div>")

    parts, links = [], []
    for number, section in enumerate(sections, start=1):
        name, title = section.experiment.name, html.escape(section.experiment.title)
        links.append(f'<li><a href="#{name}">{title}</a></li>')
        inside = shown(body(section, folder, embedded, lambda text: plain(typeset(text))))
        parts.append(f'<section id="{name}">\n<h2>{number}. {title}</h2>\n{inside}</section>\n')
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{TITLE}</title>\n<style>\n{style}</style>\n'
        f"</head>\n<body>\n<header>\n<h1>{TITLE}</h1>\n</header>\n<nav><ol>{''.join(links)}</ol></nav>\n"
        f"<main>\n{shown(head(sections, run))}{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def rewrite(path: Path, experiments: Iterable[Experiment], folder: Path) -> None:
    """Write the tables of all claims between two markers of a file; the rest of it stays.

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
    sections = [section for section in collect(experiments, folder) if section.rows]
    tables = verdicts(sections, lambda section: plain(section.headline[0]))
    sets = dict.fromkeys(name for section in sections for name in section.view["data"])  # type: ignore[index]
    page = os.path.relpath(folder / "report.md", path.parent)
    where = f"On {', '.join(sets)}. Tables, figures, caveats and the commands behind them: [report]({page})."
    with writing(path):
        text = "\n\n".join([*tables, where])
        path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def typeset(text: str) -> str:
    """A sentence or a cell with minus signs, apostrophes and spaces as a printer sets them."""
    for pattern, sign in TYPESET:
        text = pattern.sub(sign, text)
    return text


def as_csv(table: Table) -> str:
    """A table as CSV, cells as they are printed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([table.columns, *(line for line in table.lines if line)])
    return text.getvalue()


def plain(text: str) -> str:
    """Text as Markdown that shows it as it is, whatever names are in it."""
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split("\n")))


def cells(line: Iterable[str], text: Callable[[str], str] = plain) -> str:
    """A line of a Markdown table."""
    return " | ".join(map(text, line))


def code_span(text: str) -> str:
    """Text as code in Markdown, between more backticks than it has in a row."""
    text, runs = " ".join(text.split("\n")), re.findall("`+", text)
    if not runs:
        return f"`{text}`"
    fence = "`" * (1 + max(map(len, runs)))
    return f"{fence} {text} {fence}"
