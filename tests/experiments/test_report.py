"""The report: sections say what rows say, pages say what sections say, and a browser shows all of it."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from experiments.commands import report as commands
from experiments.commands import seeing
from experiments.commands.report import ALL, all_
from experiments.report.sections import Section, Sheet, command_line, command_name
from experiments.report.vector import inline

from experiments import everything, propositions
from experiments.__main__ import BAD_INPUT, main
from experiments.console import UserError, table
from experiments.records import read_rows
from experiments.report import headlines, page, readme, sections, verdicts

SETTINGS = ["--folds", "2", "--epochs", "3", "--readout", "sum", "mean", "max"]
VOID = {"meta", "br", "path", "use", "link", "img"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small run: three experiments, and a set that one of them was refused."""
    out = tmp_path_factory.mktemp("results")
    for arguments in (["collisions"], ["propositions", "--seed", "1"], ["accuracy", *SETTINGS]):
        assert main([*arguments, "--out", str(out)]) == 0
    section = sections.read(out)["collisions"]
    replace(section, refused={"NOSUCH": "a sentence <that> says why"}).write(out)
    assert main(["report", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def markup(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Elements with their attributes, in order; complains about what is not closed as it was opened."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def test_page_is_one_file_and_asks_no_network(markup):
    found = Page(markup)
    assert not {tag for tag, _ in found.elements} & {"script", "link", "img", "iframe", "object"}
    assert not found.attributes("src")
    assert "@import" not in markup
    assert "url(http" not in markup
    links = [attributes["href"] for tag, attributes in found.elements if tag == "a"]
    assert all(link.startswith(("https://", "#", "data:text/csv")) for link in links)


def test_ids_are_there_once_and_all_references_lead_to_one(markup):
    found = Page(markup)
    ids = found.attributes("id")
    assert len(ids) == len(set(ids))
    wanted = [link[1:] for link in found.attributes("href") if link.startswith("#")]
    wanted += [link[1:] for link in found.attributes("xlink:href")]
    wanted += found.attributes("aria-labelledby")
    wanted += re.findall(r"url\(#([^)]+)\)", markup)
    assert len(wanted) > 50
    assert set(wanted) <= set(ids)


def test_every_section_has_its_parts(markup, folder):
    for name, section in sections.read(folder).items():
        (part,) = re.findall(rf'<section id="{name}".*?</section>', markup, re.DOTALL)
        text = html.unescape(part)
        for words in ("Source", "Set-up", "Caveats", "To repeat", section.command):
            assert words in text
        assert text.index('class="verdict"') < text.index("Source") < text.index("<figure>")
        assert all(page.typeset(sentence) in text for sentence in section.verdicts)
        assert part.count("<svg") == part.count('role="img"') == part.count("<figcaption>") == 1
        provenance = section.provenance
        assert f"{provenance.rows} rows in <code>{provenance.file}</code>" in part
        assert all(code in part for code in provenance.code)
    assert "Left out, NOSUCH: a sentence &lt;that&gt; says why" in markup


def test_what_was_not_run_says_how(markup):
    missing = dict(
        re.findall(r'<section id="([\w-]+)"(?:(?!</section>).)*?Not run. <code>(.*?)</code>', markup, re.S)
    )
    assert {"tower", "copies", "robustness", "speed"} <= set(missing)
    assert missing["activation-maps"] == "python -m experiments activation-maps --data MUTAG Mutagenicity"
    assert "accuracy" not in missing


def test_tables_are_on_the_page_and_have_their_csv(folder, markup):
    links = dict(re.findall(r'download="([\w-]+\.csv)" href="data:text/csv;charset=utf-8,([^"]*)"', markup))
    files = {path.name: path.read_text(encoding="utf-8") for path in (folder / "tables").iterdir()}
    assert {name: unquote(html.unescape(link)) for name, link in links.items()} == files
    for name, section in sections.read(folder).items():
        for number, sheet in enumerate(section.sheets, start=1):
            lines = list(csv.reader(files[f"{name}-{number}.csv"].splitlines()))
            assert lines == [sheet.columns, *sheet.lines]
            assert len(sheet.lines) > 1
            for line in sheet.lines:
                cells = "".join(f"<td[^>]*>{re.escape(page.typeset(cell))}</td>" for cell in line)
                assert re.search(cells, html.unescape(markup))


def test_numbers_are_those_of_the_rows(folder):
    """From the rows in the file alone, the same table and the same headline."""
    section = sections.read(folder)["propositions"]
    rows = list(read_rows(folder / section.provenance.file))
    assert [Sheet.of(laid_out) for laid_out in propositions.tables(rows)] == section.sheets
    assert section.verdicts == [found.sentence for found in propositions.findings(rows)]
    assert section.headline == {"verdict": "holds", "numbers": "10 of 10"}
    assert section.provenance.code == sorted({row["code"] for row in rows})
    assert (section.provenance.rows, section.provenance.seeds) == (len(rows), [1])


def test_no_train_accuracy_is_above_its_ceiling(folder):
    """In the rows of a run; on rings a mean can be right for half of the graphs at most, in training too."""
    found = {}
    for row in read_rows(folder / "accuracy.jsonl.gz"):
        found.setdefault((row["readout"], row["seed"], row["fold"]), {})[row["metric"]] = row["value"]
    trained = {key: values for key, values in found.items() if "train ceiling" in values}
    assert len(trained) == 6
    assert all(values["train accuracy"] <= values["train ceiling"] for values in trained.values())
    assert all(found[readout, None, None]["ceiling"] == 0.5 for readout in ("mean", "max"))
    assert max(values["train ceiling"] for key, values in trained.items() if key[0] == "mean") < 0.7


def test_rerun_gives_the_same_bytes(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["propositions", "--seed", "1", "--out", str(folder)]) == 0
    assert main(["report", "--out", str(folder)]) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_markdown_has_the_same_tables_and_files_that_exist(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([\w./-]+\.(?:svg|csv))\)", text)
    assert len(linked) > 5
    assert all((folder / link).exists() for link in linked)
    anchors = re.findall(r"\]\(#([\w-]+)\)", text)
    assert len(anchors) == 3
    assert all(f'<a id="{anchor}"></a>' in text for anchor in anchors)
    for section in sections.read(folder).values():
        assert section.command in text
        assert all(f"| {page.cells_of(line)} |" in text for sheet in section.sheets for line in sheet.lines)


def test_a_section_without_words_is_shown_all_the_same(tmp_path):
    Section("levitation", "python -m experiments levitation", ["rings"], verdicts=["it -1.5 <flies>"]).write(
        tmp_path
    )
    page.write(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<section id="levitation"' in text
    assert "it −1.5 &lt;flies&gt;" in text


@pytest.mark.parametrize("content", ["not json", "[]", "{}", '{"name": "a", "sheets": 3}'])
def test_damaged_sections_and_empty_folders_are_one_sentence(tmp_path, content, capsys):
    assert main(["report", "--out", str(tmp_path)]) == BAD_INPUT
    assert "expected sections of experiments" in capsys.readouterr().err
    (tmp_path / f"copies{sections.ENDING}").write_text(content)
    assert main(["report", "--out", str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err.endswith("is no section: repeat the experiment that wrote it.\n")


def test_a_figure_that_is_gone_is_one_sentence(tmp_path):
    Section("copies", "python -m experiments copies", ["rings"], figures=["copies"]).write(tmp_path)
    with pytest.raises(UserError, match=r"Cannot read .*copies\.svg: repeat the experiment"):
        page.write(tmp_path)


def test_every_experiment_has_words():
    assert set(page.words()) == {*map(command_name, ALL), "speed", "scaling"} == set(headlines.HEADLINES)
    for words in page.words().values():
        assert {"title", "short", "claim", "source", "setup", "caveats", "figures"} <= set(words)
        assert all(figure["alt"] and figure["caption"] for figure in words["figures"])


def test_published_numbers_stand_beside_ours(tmp_path):
    columns = ["set", "network", "readout", "test", "sd"]
    lines = [["MUTAG", "gin", "sum", "85.1", "6.0"], ["MUTAG", "gin", "mean", "84.2", "5.5"]]
    sheet = Sheet("", columns, [False] * 3 + [True] * 2, lines, [])
    section = Section("accuracy", "", ["MUTAG"], sheets=[sheet])
    found = page.entry("accuracy", page.words()["accuracy"], section).published
    assert ["MUTAG", "89.4 ± 5.6", "85.1 ± 6.0"] in found[0].sheet.lines
    assert ["NCI1", "82.7 ± 1.7", "not run"] in found[0].sheet.lines
    assert len(found) == 2  # the other works have no number for MUTAG
    assert found[-1].sheet.lines[0] == ["MUTAG", ".754 / .777 / .775", "not run"]  # max is missing
    assert all(one.protocol and one.why for one in found)


def test_drawings_keep_their_ids_to_themselves(tmp_path):
    (tmp_path / "a.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="72pt" '
        'height="36pt" viewBox="0 0 72 36"><metadata>x</metadata><defs><style>*{color: red}</style>'
        '<path id="p" d="M 1.23456 -7.5 L 2 3"/></defs><g clip-path="url(#p)">'
        '<use xlink:href="#p"/></g></svg>'
    )
    found = str(inline(tmp_path / "a.svg", "one", "Less < more"))
    assert "metadata" not in found
    assert "color: red" not in found
    assert 'id="one-p" d="M 1.23 -7.5 L 2 3"' in found
    assert 'clip-path="url(#one-p)"' in found
    assert 'xlink:href="#one-p"' in found
    assert '<title id="one-title">Less &lt; more</title>' in found
    assert "width: 96px; min-width: 67px" in found


def test_drawings_lose_what_is_no_drawing(tmp_path):
    (tmp_path / "drawn.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" '
        'height="10pt" onload="alert(1)"><script>alert(2)</script><g onclick="alert(3)"><SCRIPT>4</SCRIPT>'
        '<foreignObject><b xmlns="http://www.w3.org/1999/xhtml">5</b></foreignObject>'
        '<animate attributeName="href" to="javascript:alert(6)"/>'
        '<a href="javascript:alert(7)"><path d="M 0 0"/></a>'
        '<use xlink:href="http://example.org/#a"/><path style="fill: url(http://example.org/)" d="M 1 1"/>'
        '<image href="data:image/png;base64,AA"/><use xlink:href="#kept"/></g></svg>'
    )
    text = str(inline(tmp_path / "drawn.svg", "drawn", "a drawing"))
    assert not re.search(r"alert|script|example|foreign|animate|onload|onclick|<a", text, re.IGNORECASE)
    assert 'href="data:image/png;base64,AA"' in text
    assert 'href="#drawn-kept"' in text


@pytest.mark.parametrize("text", ["<html/>", '<svg xmlns="http://www.w3.org/2000/svg" width="10%"/>'])
def test_files_that_are_no_drawings_are_one_sentence(tmp_path, text):
    (tmp_path / "drawn.svg").write_text(text)
    with pytest.raises(UserError, match="Cannot read"):
        inline(tmp_path / "drawn.svg", "drawn", "a drawing")


NAME = "<script>alert(1)</script> *bold* _it_ `code` [link](http://example.org) a|b PTC_MR &lt; end\nnext"


def test_names_are_shown_as_they_are_in_markdown():
    from markdown_it import MarkdownIt

    rendered = MarkdownIt("commonmark").render(f"{page.plain(NAME)}\n\nand {page.code_span('`' + NAME)}")
    shown = html.unescape(re.sub(r"</?(p|code)>", "", rendered))
    assert shown.split("\n")[0] == NAME.replace("\n", " ")
    assert NAME.replace("\n", " ") in shown.split("\n")[1]
    assert "|" not in page.cells_of(["a|b"]).replace("\\|", "")


def test_markdown_shows_names_of_sections_as_they_are(tmp_path):
    sheet = Sheet(title=NAME, columns=[NAME], numeric=[False], lines=[[NAME]], rules=[])
    Section(
        "collisions",
        "python -m experiments collisions --data '<b>`x`</b>'",
        [NAME],
        {"verdict": "holds", "numbers": NAME},
        verdicts=[NAME],
        notes=[NAME],
        sheets=[sheet],
        refused={NAME: NAME},
    ).write(tmp_path)
    page.write(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not re.findall(r"(?<!\\)<script", text)
    assert "](http://example" not in text.replace(r"\](http", "")
    assert "`` python -m experiments collisions --data '<b>`x`</b>' ``" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-1.5 to +2", "−1.5 to +2"),
        ("(-.3)", "(−.3)"),
        ("1e-05", "1e-05"),
        ("18-crown-6", "18-crown-6"),
        ("10-fold", "10-fold"),
        ("a-1", "a-1"),
        ("the mean's 5 %", "the mean’s 5\N{NARROW NO-BREAK SPACE}%"),
    ],
)
def test_signs_are_typeset(text, shown):
    assert page.typeset(text) == shown


def test_sheet_is_the_table_that_was_printed():
    laid_out = table("title", ("a", "b"), [["x", "1"], [], ["y", "-2"]])
    assert Sheet.of(laid_out) == Sheet("title", ["a", "b"], [False, True], [["x", "1"], ["y", "-2"]], [0])


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        ([True, True], "holds"),
        ([False, False], "does not hold"),
        ([True, False], "holds in 1 of 2"),
        ([None, None], "undecided"),
        ([True, None, False], "holds in 1 of 3, undecided in 1"),
        ([False, None], "does not hold, undecided in 1"),
        ([], "not asked"),
    ],
)
def test_a_verdict_follows_from_the_cases(cases, words):
    assert headlines.held(cases) == words


@pytest.mark.parametrize(("mean", "words"), [(0.5, "holds"), (0.6, "does not hold")])
def test_a_headline_can_come_out_against_the_claim(mean, words):
    values = {"sum": 1.0, "mean": mean, "max": 0.5}
    rows = [
        {"data": "D", "readout": readout, "metric": "accuracy", "fold": fold, "value": value}
        for readout, value in values.items()
        for fold in range(2)
    ]
    assert headlines.headline("copies", rows)["verdict"] == words


@pytest.mark.parametrize("strayed", [None, "max"])
def test_the_verdict_of_a_tower_names_who_strays(strayed):
    rows = [
        {"data": "D", "tower": "T", "readout": readout, "position": place, "factor": place + 1.0}
        | {
            "metric": metric,
            "value": 0.5 if metric == "distance" and place and readout in ("sum", strayed) else 0,
        }
        for readout in ("sum", "mean", "max")
        for place in range(3)
        for metric in ("distance", "deviation")
    ]
    (sentence,) = verdicts.of_tower(rows)
    together = "mean" if strayed else "mean and max"
    assert sentence.startswith(f"D, T: {together} place all 3 graphs on one point, bit for bit; ")
    assert ("max does not" in sentence) == bool(strayed)
    assert headlines.headline("tower", rows)["verdict"] == ("does not hold" if strayed else "holds")


def test_command_line_names_what_is_not_at_its_default():
    values = {
        "data": ["MUTAG", "PTC_MR"],
        "mirror": "/x",
        "out": Path("y"),
        "seed": 0,
        "quick": True,
        "jobs": 4,
    }
    assert command_line(all_, values) == "python -m experiments all --data MUTAG PTC_MR --quick"
    assert command_line(all_, {}) == "python -m experiments all"


def test_readme_is_rewritten_between_its_markers(folder, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{readme.BEGIN}\noutdated\n{readme.END}\nafter\n")
    for _ in range(2):
        assert main(["report", "--out", str(folder), "--readme", str(path)]) == 0
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"before\n{readme.BEGIN}\n| claim | verdict | numbers |\n")
        assert text.endswith(f"{readme.END}\nafter\n")
        assert "outdated" not in text
        assert f"| {page.words()['propositions']['short']} | holds | 10 of 10 |" in text
        assert text.count("\n|") == 2 + 3
        (link,) = re.findall(r"\[report\]\((.*?)\)", text)
        assert (tmp_path / link).resolve() == (folder / "report.md").resolve()


@pytest.mark.parametrize(
    "text", ["", readme.BEGIN, readme.END + readme.BEGIN, 2 * (readme.BEGIN + readme.END)]
)
def test_readme_without_its_markers_is_left_alone(folder, tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match="once each"):
        readme.rewrite(path, folder)
    assert path.read_text() == text
    with pytest.raises(UserError, match="--readme"):
        readme.rewrite(tmp_path / "nowhere.md", folder)


def test_rows_of_speed_make_a_section_without_timing_again(folder, tmp_path, monkeypatch):
    from experiments.speed import measure

    shutil.copy(folder / f"collisions{sections.ENDING}", tmp_path)
    (tmp_path / "collisions.svg").write_bytes((folder / "collisions.svg").read_bytes())
    work = {
        "experiment": "speed",
        "seed": 0,
        "fold": None,
        "versions": {"torch": "2"},
        "device": "cpu",
        "date": "2026",
    }
    work |= {
        "data": "4x8x2",
        "readout": "sum",
        "direction": "forward",
        "dtype": "float32",
        "layout": "sorted",
    }
    work |= {"kind": "normal", "timing": "eager", "graphs": 4, "nodes": 32, "features": 2, "commit": "c"}
    work |= {"quick": True, "verdict": "right", "machine": "abacus", "metric": "seconds"}
    times = {("old", "ours"): 9.0, ("new", "plain read"): 1.0, ("new", "ours"): 1.5}
    rows = [work | {"code": code, "contender": who, "value": value} for (code, who), value in times.items()]
    (tmp_path / "speed.jsonl.gz").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(measure, "measure", pytest.fail)
    assert main(["report", "--out", str(tmp_path)]) == 0
    section = sections.read(tmp_path)["speed"]
    assert section.command == "python -m experiments speed --quick"
    assert section.provenance.devices == ["abacus"]
    assert section.provenance.rows == 2
    assert section.sheets[0].lines[0][:2] == ["4x8x2", "1.5 s"]


def levitation(data=None, out=None, height=1):
    """A command that takes some sets only."""
    for name in data:
        if name == "explosive":
            raise ZeroDivisionError("bang")
        if name == "full":
            raise UserError("Cannot write: the disk has no room.")
        if name.startswith("heavy"):
            raise UserError(f"{name}: too heavy.")
    Section("levitation", command_line(levitation, locals()), list(data), verdicts=["flies"]).write(out)


def run_all(names, out, options=None):
    return everything.run(
        [(levitation, {"out": out} | (options or {}))], names, out, "python -m x", False, ["a note"]
    )


def test_refused_sets_are_left_out_and_said(tmp_path, capsys):
    run_all(["light", "heavy"], tmp_path, {"height": 3})
    section = sections.read(tmp_path)["levitation"]
    assert section.data == ["light"]
    assert section.refused == {"heavy": "heavy: too heavy."}
    assert section.command == "python -m experiments levitation --data light --height 3"
    assert "left out, heavy: heavy: too heavy." in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Left out, heavy: heavy: too heavy." in text
    assert "a note" in text


def test_an_experiment_that_takes_no_set_stays_in_the_report(tmp_path):
    run_all(["heavy", "heavy too"], tmp_path)
    section = sections.read(tmp_path)["levitation"]
    assert set(section.refused) == {"heavy", "heavy too"}
    assert not section.sheets
    assert "Left out, heavy too: heavy too: too heavy." in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )


def test_bad_input_that_is_not_about_a_set_stops_the_run(tmp_path):
    for names in (["full"], ["light", "full"]):
        with pytest.raises(UserError, match="no room"):
            run_all(names, tmp_path)


def test_anything_else_stops_the_run_with_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_all(["light", "explosive"], tmp_path)
    assert "ZeroDivisionError: bang" in (tmp_path / everything.FAILURE).read_text()
    assert not (tmp_path / "report.html").exists()
    run_all(["light"], tmp_path)
    assert not (tmp_path / everything.FAILURE).exists()


def test_all_without_mutag_takes_rings_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "ALL", (seeing.collisions,))
    monkeypatch.setenv("READOUTS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mirror").mkdir()
    arguments = ["all", "--quick", "--mirror", str(tmp_path / "mirror"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    run = json.loads((tmp_path / "out" / page.RUN).read_text())
    assert run["command"] == "python -m experiments all --quick"
    assert "built-in rings" in run["notes"][0]
    assert run["notes"][0] in html.unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "[1 of 1] collisions" in capsys.readouterr().out
    assert main([*arguments, "--data", "NO_SUCH_SET"]) == BAD_INPUT


@pytest.mark.parametrize("command", ALL, ids=command_name)
def test_quick_settings_are_options_of_their_command(command):
    from typer.main import get_command

    from experiments.__main__ import app

    known = {option.name for option in get_command(app).commands[command_name(command)].params}
    assert set(everything.settings(command, quick=True)) <= known
    assert everything.settings(command, quick=False) == {}


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """
<script>
addEventListener("load", () => {
  const root = document.documentElement, shown = element => {
    const box = element.getBoundingClientRect();
    return box.width > 100 && box.height > 50;
  };
  const luminance = colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
  const style = getComputedStyle(document.body), drawings = [...document.querySelectorAll("figure svg")];
  root.dataset.found = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, drawings: drawings.length,
    shown: drawings.filter(shown).length,
    inside: [...document.querySelectorAll(".card")].every(
      card => card.getBoundingClientRect().right <= root.clientWidth),
    paper: luminance(style.backgroundColor), ink: luminance(style.color),
    card: luminance(getComputedStyle(document.querySelector(".card")).backgroundColor),
    boxes: [...document.querySelectorAll(".scroll")].every(box => box.clientWidth <= root.clientWidth),
  });
});
</script>
"""


def browse(text, folder, width, scheme):
    """What the page says of itself in a frame of this width, and what the browser complains of."""
    (folder / "framed.html").write_text(text.replace("</head>", f"{PROBE}</head>"), encoding="utf-8")
    (folder / "frame.html").write_text(
        f'<iframe src="framed.html" width="{width}" height="900" frameborder="0"></iframe>'
        '<script>addEventListener("load", () => { document.documentElement.dataset.found ='
        "frames[0].document.documentElement.dataset.found; });</script>"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    options += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    options += ["--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
    options += [f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"]
    dom, log = answer([BROWSER, *options, (folder / "frame.html").as_uri()], folder)
    (found,) = re.findall(r'^<html data-found="(.*?)"', dom, re.MULTILINE) or [None]
    assert found, log
    return json.loads(html.unescape(found)), [line for line in log.splitlines() if "CONSOLE" in line]


def answer(command, folder):
    """What a browser writes to its two outputs; one that does not end says nothing of the page."""
    outputs = folder / "dom.txt", folder / "log.txt"  # its children hold a pipe open when it is killed
    with outputs[0].open("wb") as dom, outputs[1].open("wb") as log:
        process = subprocess.Popen(command, stdout=dom, stderr=log, start_new_session=True)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{command[0]} hangs")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return [output.read_text(errors="replace") for output in outputs]


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_in_a_browser(markup, tmp_path, width, scheme):
    found, complaints = browse(markup, tmp_path, width, scheme)
    assert complaints == []
    assert found["width"] == found["scroll"] == width
    assert found["drawings"] == found["shown"] == markup.count("<svg") == 3
    assert found["inside"]
    assert found["boxes"]
    assert (found["paper"] > found["ink"]) == (scheme == "light")
    assert abs(found["paper"] - found["ink"]) > 400
    assert found["card"] > 650


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH")
def test_the_browser_test_sees_faults(markup, tmp_path):
    broken = markup.replace("</main>", '<div style="width: 3000px">wide</div></main>')
    broken = broken.replace("</head>", "<script>nonsense()</script></head>").replace(
        "<svg ", '<svg hidden="" ', 1
    )
    broken = broken.replace("</style>", "[hidden] { display: none !important; }</style>")
    found, complaints = browse(broken, tmp_path, 400, "light")
    assert "nonsense is not defined" in complaints[0]
    assert found["scroll"] > 2900
    assert found["shown"] == found["drawings"] - 1
