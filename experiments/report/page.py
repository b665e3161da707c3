"""The page: sections in a fixed order, each between its own words, as HTML, Markdown and CSV.

Nothing is computed here: numbers come from sections, which come from rows, and words from `words.toml`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from experiments.console import UserError, writing
from experiments.report import sections
from experiments.report.sections import ENDING, Section, Sheet
from experiments.report.vector import inline

HERE = Path(__file__).parent
RUN = "all.json"
OPEN_LINES, SENTENCES, LONG = 20, 6, 30
MARKUP = re.compile(r"[\\`*<|]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
TYPESET = (
    (re.compile(r"(?<![\w.)-])-(?=\.?\d)"), "\N{MINUS SIGN}"),
    (re.compile(r"(?<=\w)'(?=\w)"), "\N{RIGHT SINGLE QUOTATION MARK}"),
    (re.compile(r"(?<=\d) %"), "\N{NARROW NO-BREAK SPACE}%"),
)


@dataclass(frozen=True)
class Figure:
    """A drawing in the folder, what it shows, and how it is read."""

    name: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Published:
    """A work's numbers beside ours: who, how, why they differ, and the table."""

    work: str
    protocol: str
    why: str
    sheet: Sheet


@dataclass(frozen=True)
class Entry:
    """The words of an experiment, and its section if it was run."""

    name: str
    words: Mapping[str, Any]
    section: Section | None
    figures: Sequence[Figure] = ()
    published: Sequence[Published] = ()

    @property
    def command(self) -> str:
        """What makes this section, once more or for the first time."""
        if self.section:
            return self.section.command
        return " ".join(["python -m experiments", self.name, *self.words.get("options", [])])

    @property
    def own(self) -> dict[str, Sheet]:
        """The tables of the experiment, by the name of their CSV."""
        found = self.section.sheets if self.section else []
        return {f"{self.name}-{number}": sheet for number, sheet in enumerate(found, start=1)}

    @property
    def sheets(self) -> dict[str, Sheet]:
        """All tables, by the name of their CSV."""
        found = [*self.own.values(), *(work.sheet for work in self.published)]
        return {f"{self.name}-{number}": sheet for number, sheet in enumerate(found, start=1)}


def write(folder: Path) -> list[Path]:
    """Write `report.html`, `report.md` and `tables/NAME-n.csv` into the folder that has the sections.

    Raises `UserError` where it has none.
    """
    entries = collect(folder)
    run = read_run(folder)
    tables = folder / "tables"
    with writing(tables):
        tables.mkdir(exist_ok=True)
        for old in tables.glob("*.csv"):
            old.unlink()
        for entry in entries:
            for name, sheet in entry.sheets.items():
                (tables / f"{name}.csv").write_text(as_csv(sheet), encoding="utf-8")
    pages = [folder / "report.html", folder / "report.md"]
    for path in pages:
        text = environment(folder).get_template(f"{path.name}.j2").render(entries=entries, run=run)
        with writing(path):
            path.write_text(text, encoding="utf-8")
    return [*pages, tables]


def collect(folder: Path) -> list[Entry]:
    """Every experiment that has words, in their order, then sections that have none."""
    found = sections.read(folder)
    if not found:
        raise UserError(
            f"--out {folder}: expected sections of experiments (*{ENDING}), got none; run one first."
        )
    described = words()
    unknown = {name: {"title": name, "short": name} for name in found if name not in described}
    return [entry(name, said, found.get(name)) for name, said in (described | unknown).items()]


@cache
def words() -> dict[str, dict[str, Any]]:
    """What is said of each experiment, in the order of the page."""
    result: dict[str, dict[str, Any]] = tomllib.loads((HERE / "words.toml").read_text(encoding="utf-8"))
    return result


def entry(name: str, said: Mapping[str, Any], section: Section | None) -> Entry:
    """Words and section together."""
    if section is None:
        return Entry(name, said, None)
    figures = [figure(drawing, said.get("figures", [])) for drawing in section.figures]
    works = [work for work in said.get("published", []) if work["values"].keys() & set(section.data)]
    return Entry(name, said, section, figures, [beside(work, section) for work in works])


def figure(name: str, described: Sequence[Mapping[str, str]]) -> Figure:
    """A drawing with the words for the longest name that its own begins with, as tower-MUTAG with tower."""
    fitting = [words for words in described if name.startswith(words["name"])]
    if not fitting:
        return Figure(name, f"Figure of {name}", "")
    best = max(fitting, key=lambda words: len(words["name"]))
    return Figure(name, best["alt"], best["caption"])


def beside(work: Mapping[str, Any], section: Section) -> Published:
    """Published numbers, and for the same sets the cells of our tables that are nearest to them."""
    lines = [
        [data, value, " / ".join(ours(section, data, work["ours"])) or "not run"]
        for data, value in work["values"].items()
    ]
    title = f"{work['what']}: published, and ours"
    sheet = Sheet(title, ["set", "published", "ours"], [False, True, True], lines, [])
    return Published(work["work"], work["protocol"], work["why"], sheet)


def ours(section: Section, data: str, wanted: Mapping[str, Any]) -> list[str]:
    """One number for each readout that is wanted, as `shown` writes it; none where one is missing."""
    lines = [
        dict(zip(sheet.columns, line, strict=True))
        for sheet in section.sheets
        for line in sheet.lines
        if line[0] == data
    ]
    found = []
    for readout in wanted["readouts"]:
        where = {"network": wanted["network"], "readout": readout}
        found += [wanted["shown"].format(**line) for line in lines if where.items() <= line.items()]
    return found if len(found) == len(wanted["readouts"]) else []


def read_run(folder: Path) -> dict[str, Any] | None:
    """What `all` says of its run, if it made these sections."""
    path = folder / RUN
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def environment(folder: Path) -> Environment:
    """Templates, and the few things that they do with text."""
    result = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    result.filters |= {"inline": html_of, "typeset": typeset, "link": data_link}
    result.filters |= {"cells": cells_of, "plain": plain, "code": code_span}
    result.globals |= {
        "svg": lambda figure: inline(folder / f"{figure.name}.svg", figure.name, figure.alt),
        "css": Markup((HERE / "templates" / "report.css").read_text(encoding="utf-8")),
        "open_lines": OPEN_LINES,
        "shown": SENTENCES,
        "long": LONG,
    }
    return result


def html_of(text: str) -> Markup:
    """One line of Markdown as HTML, without a paragraph around it."""
    return Markup(MarkdownIt("commonmark", {"html": False}).renderInline(typeset(text)))


def typeset(text: str) -> str:
    """A sentence or a cell with minus signs, apostrophes and spaces as a printer sets them."""
    for pattern, sign in TYPESET:
        text = pattern.sub(sign, text)
    return text


def as_csv(sheet: Sheet) -> str:
    """A table as CSV, cells as they are printed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([sheet.columns, *sheet.lines])
    return text.getvalue()


def data_link(sheet: Sheet) -> str:
    """The CSV as an address that needs no network."""
    return f"data:text/csv;charset=utf-8,{quote(as_csv(sheet))}"


def cells_of(line: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return " | ".join(map(plain, line))


def plain(text: str) -> str:
    """Text as Markdown that shows it as it is, whatever names are in it."""
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split("\n")))


def code_span(text: str) -> str:
    """Text as code in Markdown, between more backticks than it has in a row."""
    text, runs = " ".join(text.split("\n")), re.findall("`+", text)
    if not runs:
        return f"`{text}`"
    fence = "`" * (1 + max(map(len, runs)))
    return f"{fence} {text} {fence}"
