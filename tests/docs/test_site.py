"""The built site: every public name is there, and a browser shows all of its pages."""

import json
import os
import posixpath
import queue
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import answer, needs_browser

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
PUBLIC = json.loads((ROOT / "tests" / "readouts" / "public_names.json").read_text())["names"]
WIDTHS = (400, 1280)
SEARCH = "search.html?q=median"
BROKEN = """<!doctype html><title>broken</title><body data-theme="light" style="background: white">
<div style="width: 3000px">wide</div><img src="nowhere.png"><math style="display: none"><mi>x</mi></math>
<script>nonsense()</script>"""
PROBE = """<!doctype html><title>probe</title><body><script>
const pages = PAGES, pause = time => new Promise(resolve => setTimeout(resolve, time));
async function open(page, width) {
  const frame = document.createElement("iframe");
  Object.assign(frame, {src: page, width, height: 900});
  frame.style.border = "none";
  const loaded = new Promise(resolve => frame.onload = resolve);
  document.body.append(frame);
  await loaded;
  return frame;
}
async function look(page, width) {
  const frame = await open(page, width), inside = frame.contentDocument, root = inside.documentElement;
  const box = element => element.getBoundingClientRect();
  const all = choice => [...inside.querySelectorAll(choice)];
  const light = colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
  const told = text => / found | did not match /.test(text.textContent);
  const searched = () => all("p.search-summary").some(told)
    && all("ul.search li").every(result => result.querySelector("span, p.context"));
  for (let tries = 0; page.includes("?q=") && tries < 100 && !searched(); tries++)
    await pause(100);
  const contrast = theme => {
    inside.body.dataset.theme = theme;
    const style = frame.contentWindow.getComputedStyle(inside.body);
    return light(style.backgroundColor) - light(style.color);
  };
  const found = {
    page, width, scroll: root.scrollWidth,
    images: all("article img").length, formulas: all("math").length,
    unseen: all("article img").filter(image => !image.naturalWidth || box(image).width < 50).length,
    outside: all("article img").filter(image => box(image).right > width).length,
    empty: all("math").filter(formula => box(formula).width < 3 || box(formula).height < 3).length,
    results: all("ul.search li a").map(link => link.href), light: contrast("light"), dark: contrast("dark"),
  };
  frame.remove();
  return found;
}
(async () => {
  const found = [];
  try {
    for (const page of pages) for (const width of WIDTHS) found.push(await look(page, width));
  } finally {
    await fetch("/found", {method: "POST", body: JSON.stringify(found)});
  }
})();
</script>"""


def built():
    """The pages of the site by their address."""
    return sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))


needs_site = pytest.mark.skipif(not built(), reason="needs the built site (make docs)")


class Server(SimpleHTTPRequestHandler):
    """Serves the site, the page that opens all others in frames, and a broken one; keeps what is missing."""

    def __init__(self, *arguments, pages, answers, missing):
        self.pages, self.answers, self.missing = pages, answers, missing
        super().__init__(*arguments, directory=SITE)

    def do_GET(self):
        page = self.pages.get(self.path.lstrip("/"))
        if page is None:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        return self.wfile.write(page.encode())

    def do_POST(self):
        self.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, text, *arguments):
        pass

    def send_error(self, code, *arguments, **options):
        self.missing.append(self.path)
        super().send_error(code, *arguments, **options)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the browser measures on every page, what it complains of, and what the server does not have."""
    pages = [page for page in built() if page not in ("index.html", "search.html")]
    pages += [SEARCH, "broken.html"]
    answers, missing, found = queue.Queue(), [], []
    probe = PROBE.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS))
    kept = {"probe.html": probe, "broken.html": BROKEN, "favicon.ico": ""}
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Server, pages=kept, answers=answers, missing=missing)
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        _, log = answer(
            tmp_path_factory.mktemp("browser"),
            "--window-size=1300,900",
            "--remote-debugging-port=0",
            f"http://127.0.0.1:{server.server_port}/probe.html",
            until=lambda: found.extend(answers.get(timeout=120)),
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    complaints = [line for line in log.splitlines() if "CONSOLE" in line]
    return {(one["page"], one["width"]): one for one in found}, complaints, missing


@needs_site
@needs_browser
def test_a_browser_shows_every_page(seen):
    found, complaints, missing = seen
    good = {key: one for key, one in found.items() if key[0] != "broken.html"}
    assert len(good) == len(WIDTHS) * (len(built()) - 1)
    assert [key for key, one in good.items() if one["scroll"] > one["width"]] == []
    for fault in ("unseen", "outside", "empty"):
        assert [key for key, one in good.items() if one[fault]] == []
    assert all(one["light"] > 400 and one["dark"] < -400 for one in good.values())
    assert [line for line in complaints if "broken.html" not in line and "nowhere.png" not in line] == []
    assert missing == 2 * ["/nowhere.png"]
    for width in WIDTHS:
        assert found["docs/exactness.html", width]["formulas"] > 50
        assert found["experiments/results/report.html", width]["images"] > 15


@needs_site
@needs_browser
def test_the_search_finds_a_name_and_a_page(seen):
    for width in WIDTHS:
        results = [posixpath.basename(link.partition("#")[0]) for link in seen[0][SEARCH, width]["results"]]
        assert {"readouts.html", "choosing.html", "report.html"} <= set(results)
        assert any("#readouts.median" in link for link in seen[0][SEARCH, width]["results"])


@needs_site
@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_browser_sees_faults(seen, width):
    found, complaints, _ = seen
    broken = found["broken.html", width]
    assert broken["scroll"] > 2900
    assert (broken["formulas"], broken["empty"], broken["results"]) == (1, 1, [])
    assert any("nonsense is not defined" in line for line in complaints)


@needs_site
@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_in_the_reference(package):
    inventory = zlib.decompress((SITE / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    documented = {line.split()[0] for line in inventory.splitlines() if " py:" in line}
    assert {f"{package}.{name}" for name in PUBLIC[package]} <= documented


@needs_site
def test_the_site_is_small_and_asks_no_network():
    files = [path for path in SITE.rglob("*") if path.is_file()]
    assert sum(os.stat(path).st_size for path in files) < 30e6
    for path in files:
        if path.suffix in (".html", ".css"):
            text = path.read_text(encoding="utf-8")
            assert not [
                word for word in ('src="http', "src='http", "@import url(http", "url(http") if word in text
            ]
            assert 'rel="stylesheet" href="http' not in text
