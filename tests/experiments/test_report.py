"""The report: pages say what rows say, a browser shows all of it, and a new experiment is three files."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import answer, needs_browser

from experiments import __main__ as cli
from experiments import collisions, copies, records, report, run, tower
from experiments.__main__ import BAD_INPUT, load_all, main
from experiments.console import Table, UserError, table
from experiments.digest import digest
from experiments.experiment import MOST_TOLD, Drawing, Experiment, Finding, told, verdict
from experiments.records import RowLog, read, read_rows

ROOT = Path(__file__).parents[2]
SETTINGS = ["--folds", "2", "--epochs", "3", "--readout", "sum", "mean", "max"]
VOID = {"meta", "br", "link", "img"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small run: three experiments, and a set that one of them was refused."""
    out = tmp_path_factory.mktemp("results")
    for arguments in (["collisions"], ["propositions", "--seed", "1"], ["accuracy", *SETTINGS]):
        assert main([*arguments, "--out", str(out)]) == 0
    view = read(out / "collisions.jsonl.gz").view
    with RowLog(out, "collisions", code=collisions.EXPERIMENT.code("cpu")) as log:
        log.finish(view["rows"], view | {"refused": {"NOSUCH": "a sentence <that> says why"}})
    assert main(["report", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def markup(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sections(folder):
    return {found.experiment.name: found for found in report.collect(load_all(), folder) if found.view}


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
    assert not {tag for tag, _ in found.elements} & {"script", "link", "iframe", "object"}
    assert all(source.startswith("data:image/png;base64,") for source in found.attributes("src"))
    assert "@import" not in markup
    assert "url(http" not in markup
    links = [attributes["href"] for tag, attributes in found.elements if tag == "a"]
    assert all(link.startswith(("https://", "#", "data:text/csv")) for link in links)
    ids = found.attributes("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_every_section_has_its_parts(markup, sections):
    for name, section in sections.items():
        (part,) = re.findall(rf'<section id="{name}".*?</section>', markup, re.DOTALL)
        text = html.unescape(re.sub(r"</?(strong|em|code)>", "", part))
        for words in ("Source.", "Set-up.", "Caveats:", f"To repeat: {section.command}", "the code as it is"):
            assert words in text
        assert all(report.typeset(found.sentence) in text for found in section.findings)
        assert part.count("<img") == 1
        assert f"{len(section.rows)} rows in {name}.jsonl.gz" in text
    assert "Left out, NOSUCH: a sentence &lt;that&gt; says why" in markup
    assert "<strong>Check: holds.</strong> 10 of 10" in markup


def test_what_was_not_run_says_how(markup):
    missing = dict(
        re.findall(r'<section id="([\w-]+)"(?:(?!</section>).)*?Not run. <code>(.*?)</code>', markup, re.S)
    )
    assert {"tower", "copies", "robustness", "speed"} <= set(missing)
    assert missing["activation-maps"] == "python -m experiments activation-maps --data MUTAG Mutagenicity"
    assert "accuracy" not in missing


def test_tables_are_on_both_pages_and_have_their_csv(folder, markup, sections):
    links = re.findall(r'href="data:text/csv;charset=utf-8,([^"]*)"', markup)
    files = {path.name: path.read_text(encoding="utf-8") for path in (folder / "tables").iterdir()}
    assert sorted(unquote(html.unescape(link)) for link in links) == sorted(files.values())
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert all((folder / link).exists() for link in re.findall(r"\]\(([\w./-]+\.(?:png|csv))\)", text))
    for name, section in sections.items():
        assert section.command in text
        for number, found in enumerate(section.tables, start=1):
            lines = [line for line in found.lines if line]
            assert list(csv.reader(files[f"{name}-{number}.csv"].splitlines())) == [[*found.columns], *lines]
            for line in lines:
                assert f"| {report.cells(line)} |" in text
                cells = r"\s*".join(f"<td[^>]*>{re.escape(report.typeset(cell))}</td>" for cell in line)
                assert re.search(cells, html.unescape(markup))


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


def test_an_empty_folder_and_a_lost_figure_are_one_sentence(folder, tmp_path, capsys):
    assert main(["report", "--out", str(tmp_path)]) == BAD_INPUT
    assert "expected rows of an experiment that ended" in capsys.readouterr().err
    shutil.copy(folder / "collisions.jsonl.gz", tmp_path)
    with pytest.raises(UserError, match=r"Cannot read .*collisions\.png: repeat the experiment"):
        report.write([collisions.EXPERIMENT], tmp_path)


def test_the_committed_rows_make_the_table_of_the_documentation(tmp_path):
    """Every cell, from rows that were measured before rows and report had this form."""
    page = ROOT / "docs" / "experiments.md"
    copy = tmp_path / "docs" / "experiments.md"
    copy.parent.mkdir()
    shutil.copy(page, copy)
    results = tmp_path / "experiments" / "results"
    results.parent.mkdir()
    results.symlink_to(ROOT / "experiments" / "results")
    report.rewrite(copy, load_all(), results)
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_committed_results_are_small_and_complete():
    results = ROOT / "experiments" / "results"
    paths = [path for path in results.rglob("*") if path.is_file() and path.name != "report.html"]
    assert sum(path.stat().st_size for path in paths) < 8e6
    for experiment in load_all():
        view = read(records.path_of(results, experiment.name)).view
        assert view["rows"]
        assert all((results / f"{name}.png").exists() for name in view["figures"])


def test_every_experiment_has_words():
    for experiment in load_all():
        words = (experiment.title, experiment.question, experiment.claim, experiment.theory)
        assert all((*words, experiment.source, experiment.setup, experiment.caveats, experiment.drawings))
        assert set(experiment.quick) <= set(experiment.parameters)


def test_published_numbers_stand_beside_ours():
    columns = ["set", "network", "readout", "test", "sd"]
    lines = [["MUTAG", "gin", "sum", "85.1", "6.0"], [], ["MUTAG", "gin", "mean", "84.2", "5.5"]]
    ours = [Table("", columns, lines, 3)]
    published = cli.load("accuracy.experiment").published
    found = report.beside(published[0], ours)
    assert ["MUTAG", "89.4 ± 5.6", "85.1 ± 6.0"] in found.lines
    assert ["NCI1", "82.7 ± 1.7", "not run"] in found.lines
    assert report.beside(published[-1], ours).lines[0] == ["MUTAG", ".754 / .777 / .775", "not run"]


NAME = "<script>alert(1)</script> *bold* _it_ `code` [link](http://example.org) a|b PTC_MR &lt; end\nnext"


def test_names_are_shown_as_they_are_in_markdown():
    from markdown_it import MarkdownIt

    rendered = MarkdownIt("commonmark").render(f"{report.plain(NAME)}\n\nand {report.code_span('`' + NAME)}")
    shown = html.unescape(re.sub(r"</?(p|code)>", "", rendered))
    assert shown.split("\n")[0] == NAME.replace("\n", " ")
    assert NAME.replace("\n", " ") in shown.split("\n")[1]
    assert "|" not in report.cells(["a|b"]).replace("\\|", "")


def test_names_of_sets_are_shown_as_they_are(tmp_path):
    work = {"data": NAME, "readout": "x", "seed": 0, "fold": None}
    with RowLog(tmp_path, "toy") as log:
        rows = log.measure(work, ("graphs",), lambda: {"graphs": 1})
        view = {"command": "python -m experiments toy --data '<b>`x`</b>'", "data": [NAME], "notes": [NAME]}
        log.finish(rows, view | {"figures": [], "refused": {NAME: NAME}})
    report.write([TOY], tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not re.findall(r"(?<!\\)<script", text)
    assert "](http://example" not in text.replace(r"\](http", "")
    assert "`` python -m experiments toy --data '<b>`x`</b>' ``" in text
    assert "<script" not in (tmp_path / "report.html").read_text(encoding="utf-8")


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
    assert report.typeset(text) == shown


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
    ignored = Finding("beside", False, "", main=False)
    assert verdict([*(Finding("a", case, "") for case in cases), ignored]) == words


def test_a_finding_is_told_with_its_truth_and_many_are_counted():
    assert Finding("D", False, "1 of 2").sentence == "D: not as claimed, 1 of 2."
    many = [Finding("D", place % 3 > 0, "") for place in range(MOST_TOLD + 2)]
    assert told(many) == ["68 as claimed; 34 not as claimed."]


@pytest.mark.parametrize(("mean", "holds"), [(0.5, True), (0.6, False)])
def test_copies_can_come_out_against_the_claim(mean, holds):
    values = {"sum": 1.0, "mean": mean, "max": 0.5}
    rows = [
        {"data": "D", "readout": readout, "metric": "accuracy", "fold": fold, "value": value}
        for readout, value in values.items()
        for fold in range(2)
    ]
    assert [found.holds for found in copies.findings(rows)] == [holds]


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
    (found,) = tower.findings(rows)
    together = "mean" if strayed else "mean and max"
    assert found.numbers.startswith(f"{together} place all 3 graphs on one point, bit for bit; ")
    assert ("max does not" in found.numbers) == bool(strayed)
    assert found.holds is (strayed is None)


def test_readme_is_rewritten_between_its_markers(folder, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{report.BEGIN}\noutdated\n{report.END}\nafter\n")
    assert main(["report", "--out", str(folder), "--readme", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{report.BEGIN}\n{report.KINDS['finding']}\n\n| claim | verdict | ")
    assert report.KINDS["check"] in text
    assert text.endswith(f"{report.END}\nafter\n")
    assert "outdated" not in text
    assert text.count("\n|") == 2 * 2 + 3
    (link,) = re.findall(r"\[report\]\((.*?)\)", text)
    assert (tmp_path / link).resolve() == (folder / "report.md").resolve()


@pytest.mark.parametrize(
    "text", ["", report.BEGIN, report.END + report.BEGIN, 2 * (report.BEGIN + report.END)]
)
def test_readme_without_its_markers_is_left_alone(folder, tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match="once each"):
        report.rewrite(path, load_all(), folder)
    assert path.read_text() == text
    with pytest.raises(UserError, match="--readme"):
        report.rewrite(tmp_path / "nowhere.md", load_all(), folder)


def count_graphs(tasks, log, height):
    """A toy: how many graphs a set has."""
    rows = []
    for graphs in tasks:
        if graphs.name == TOO_HEAVY:
            raise UserError(f"{graphs.name}: too heavy.")
        work = {"data": graphs.name, "readout": "none", "seed": None, "fold": None, "height": height}
        rows += log.measure(work, ("graphs",), lambda graphs=graphs: {"graphs": len(graphs)})
    return rows


def draw(rows, out):
    """A picture of nothing."""
    from experiments import figures

    return figures.save(figures.sheet(2, 1)[0], out, "toy")


TOO_HEAVY = "heavy"
TOY = Experiment(
    name="toy",
    title="Toy",
    question="How many graphs has a set?",
    claim="A set has graphs",
    theory="Sets have graphs.",
    setup="They are counted.",
    source="None.",
    caveats=("None.",),
    drawings=(Drawing("toy", "Nothing.", "Nothing is drawn."),),
    measure=count_graphs,
    tables=lambda rows: [table("Graphs", ("set", "graphs"), ([r["data"], str(r["value"])] for r in rows))],
    findings=lambda rows: [Finding(row["data"], row["value"] > 0, f"{row['value']} graphs") for row in rows],
    numbers=lambda rows: f"{sum(row['value'] for row in rows)} graphs",
    figure=draw,
    options={"height": cli.number(1, 1, "How high.")},
    quick={"height": 2},
)


@pytest.fixture
def toy(monkeypatch):
    """A module `experiments.toy`, and its line in the one list."""
    import sys
    from types import ModuleType

    from datasets import load

    module = ModuleType("experiments.toy")
    module.EXPERIMENT = TOY
    monkeypatch.setitem(sys.modules, "experiments.toy", module)
    monkeypatch.setattr(cli, "EXPERIMENTS", ("toy",))
    monkeypatch.setattr(cli, "MODULES", {"toy": "toy"})
    monkeypatch.setattr(Experiment, "code", lambda self, device: "toy")
    sets = {TOO_HEAVY: replace(load("rings"), name=TOO_HEAVY), "rings": load("rings")}
    for place in (cli, run):
        monkeypatch.setattr(place, "load_sets", lambda names, *_, **__: [sets[name] for name in names])


def test_a_new_experiment_is_a_module_a_line_and_a_test(toy, tmp_path, capsys):
    out = str(tmp_path)
    assert main(["--help"]) == 0
    assert "How many graphs has a set?" in capsys.readouterr().out
    for _ in range(2):
        assert main(["toy", "--height", "3", "--out", out]) == 0
        said = capsys.readouterr().out
        assert "rings: as claimed, 40 graphs." in said
        assert f"wrote {tmp_path / 'toy.png'}" in said
    assert len(read_rows(tmp_path / "toy.jsonl.gz")) == 1
    assert main(["report", "--out", out]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| [A set has graphs](#toy) | holds | 40 graphs |" in text
    assert "python -m experiments toy --height 3" in text
    assert "![Nothing.](toy.png)" in text
    assert main(["toy", "--height", "0", "--out", out]) == BAD_INPUT


def test_all_leaves_refused_sets_out_and_says_so(toy, tmp_path, capsys):
    arguments = ["all", "--quick", "--out", str(tmp_path), "--data", TOO_HEAVY]
    assert main([*arguments, "rings"]) == 0
    view = read(tmp_path / "toy.jsonl.gz").view
    assert view["data"] == ["rings"]
    assert view["refused"] == {TOO_HEAVY: "heavy: too heavy."}
    assert view["command"] == "python -m experiments toy --height 2"
    said = capsys.readouterr().out
    assert "left out, heavy: heavy: too heavy." in said
    assert "[1 of 1] toy" in said
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Left out, heavy: heavy: too heavy." in text
    assert f"This page: `python -m experiments all --data {TOO_HEAVY} rings --quick`" in text
    assert main(arguments) == 0
    assert not read(tmp_path / "toy.jsonl.gz").view["data"]
    assert "Left out, heavy" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("names", [["rings"], [TOO_HEAVY, "rings"]])
def test_bad_input_that_is_not_about_a_set_stops_the_run(toy, tmp_path, monkeypatch, names):
    def full(*arguments, **options):
        raise UserError("Cannot write: the disk has no room.")

    monkeypatch.setattr(run, "RowLog", full)
    assert main(["all", "--out", str(tmp_path), "--data", *names]) == BAD_INPUT


def test_anything_else_stops_the_run_with_its_traceback(toy, tmp_path, monkeypatch):
    arguments = ["all", "--out", str(tmp_path), "--data", "rings"]
    with monkeypatch.context() as patch:
        patch.setattr(run, "RowLog", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(arguments)
    assert "ZeroDivisionError" in (tmp_path / run.FAILURE).read_text()
    assert not (tmp_path / "report.html").exists()
    assert main(arguments) == 0
    assert not (tmp_path / run.FAILURE).exists()


def test_all_without_mutag_takes_rings_and_says_so(toy, tmp_path, monkeypatch):
    def only_rings(names, *_, **__):
        if names != ["rings"]:
            raise UserError("no MUTAG here")

    monkeypatch.setattr(cli, "load_sets", only_rings)
    assert main(["all", "--quick", "--out", str(tmp_path)]) == 0
    about = json.loads((tmp_path / run.RUN).read_text())
    assert about["command"] == "python -m experiments all --quick"
    assert "built-in rings: no MUTAG here" in about["notes"][0]
    assert about["notes"][0] in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_digest_follows_what_measures_and_nothing_else(tmp_path, monkeypatch):
    from experiments import digest as module

    source = """
import readouts
from experiments import figures
from datasets import covers
RATE = 0.1
def measure(x):
    "Measure."
    return helper(x) * RATE + covers.copies(x)
def helper(x):
    return x
def tables(rows):
    return rows
"""
    for folder in ("experiments", "datasets", "readouts"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    place = tmp_path / "experiments" / "thing.py"
    (tmp_path / "datasets" / "covers.py").write_text(
        "def copies(x):\n    return x\ndef other():\n    return 1\n"
    )
    monkeypatch.setattr(module, "ROOT", tmp_path)

    def of(text):
        place.write_text(text)
        module.parsed.cache_clear()
        module.place.cache_clear()
        measure = lambda x: x  # noqa: E731
        measure.__module__, measure.__qualname__ = "experiments.thing", "measure"
        return digest([measure], "cpu")

    before = of(source)
    same = [
        ("return rows", "return list(rows)"),
        ("Measure.", "Other words."),
        ("    return x", "    # so\n    return x"),
    ]
    assert all(of(source.replace(*change)) == before for change in same)
    other = [("0.1", "0.2"), ("return x\n", "return -x\n"), (") * RATE", ") + RATE")]
    assert all(of(source.replace(*change)) != before for change in other)
    (tmp_path / "datasets" / "covers.py").write_text(
        "def copies(x):\n    return x\ndef other():\n    return 2\n"
    )
    assert of(source) == before
    (tmp_path / "datasets" / "covers.py").write_text("def copies(x):\n    return 2 * x\n")
    assert of(source) != before
    module.parsed.cache_clear()
    module.place.cache_clear()


PROBE = """
<script>
addEventListener("load", () => {
  const root = document.documentElement, shown = element => {
    const box = element.getBoundingClientRect();
    return box.width > 100 && box.height > 50;
  };
  const luminance = colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
  const style = getComputedStyle(document.body), drawings = [...document.querySelectorAll("img")];
  root.dataset.found = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, drawings: drawings.length,
    shown: drawings.filter(shown).length,
    inside: drawings.every(image => image.getBoundingClientRect().right <= root.clientWidth),
    paper: luminance(style.backgroundColor), ink: luminance(style.color),
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
    options = ["--allow-file-access-from-files", "--dump-dom"]
    options += [f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"]
    dom, log = answer(folder, *options, (folder / "frame.html").as_uri())
    (found,) = re.findall(r'^<html data-found="(.*?)"', dom, re.MULTILINE) or [None]
    assert found, log
    return json.loads(html.unescape(found)), [line for line in log.splitlines() if "CONSOLE" in line]


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_in_a_browser(markup, tmp_path, width, scheme):
    found, complaints = browse(markup, tmp_path, width, scheme)
    assert complaints == []
    assert found["width"] == found["scroll"] == width
    assert found["drawings"] == found["shown"] == markup.count("<img") == 3
    assert found["inside"]
    assert found["boxes"]
    assert (found["paper"] > found["ink"]) == (scheme == "light")
    assert abs(found["paper"] - found["ink"]) > 400


@needs_browser
def test_the_browser_test_sees_faults(markup, tmp_path):
    broken = markup.replace("</main>", '<div style="width: 3000px">wide</div></main>')
    broken = broken.replace("</head>", "<script>nonsense()</script></head>").replace(
        "<img ", '<img hidden="" ', 1
    )
    broken = broken.replace("</style>", "[hidden] { display: none !important; }</style>")
    found, complaints = browse(broken, tmp_path, 400, "light")
    assert "nonsense is not defined" in complaints[0]
    assert found["scroll"] > 2900
    assert found["shown"] == found["drawings"] - 1


def test_rows_of_an_older_form_are_said_to_be_old_and_not_shown(tmp_path, monkeypatch):
    """Rows of this code that cannot be read are a bug, and stay one."""

    def cannot(rows):
        raise KeyError("a metric that older rows do not have")

    toy = replace(collisions.EXPERIMENT, measure=measure_nothing, prepare=None, tables=cannot)
    work = {"data": "rings", "readout": "sum", "seed": 0, "fold": None}
    for code in ("older", toy.code("cpu")):
        with RowLog(tmp_path / code, toy.name, code=code) as log:
            rows = log.measure(work, ("pairs",), lambda: {"pairs": 1})
            log.finish(
                rows, {"command": "again", "data": ["rings"], "notes": [], "figures": [], "refused": {}}
            )
    report.write([toy], tmp_path / "older")
    text = (tmp_path / "older" / "report.md").read_text()
    assert "Measured by older code, whose rows have another form. To repeat: `again`" in text
    with pytest.raises(KeyError, match="a metric that older rows do not have"):
        report.write([toy], tmp_path / toy.code("cpu"))


def measure_nothing(sets, log):
    """Measure nothing."""
    return []
