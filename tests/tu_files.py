"""Tiny TU sets, as folders and as archives, and a site on this machine that serves them well or badly."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from readouts.commands.tu import checksums

# A triangle of class 1 and a path of class 2, both directions of every edge, labels on nodes and edges.
SOUND = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n1, 3\n3, 1\n4, 5\n5, 4\n5, 6\n6, 5\n",
    "graph_indicator": "1\n1\n1\n2\n2\n2\n",
    "graph_labels": "1\n2\n",
    "node_labels": "0\n1\n0\n2\n2\n1\n",
    "edge_labels": "0\n0\n1\n1\n0\n0\n1\n1\n0\n0\n",
}


def write_set(parent: Path, name: str = "TINY", **changes: str | None) -> Path:
    """Write `SOUND` with these changes (None removes a file) below `parent`; returns its folder."""
    folder = parent / name
    folder.mkdir(parents=True)
    for part, text in {**SOUND, **changes}.items():
        if text is not None:
            (folder / f"{name}_{part}.txt").write_text(text)
    return folder


def archive_of(folder: Path) -> Path:
    """Zip a folder, with its name, into an archive beside it."""
    archive = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in sorted(folder.iterdir()):
            bundle.write(path, f"{folder.name}/{path.name}")
    return archive


def publish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make TINY a set whose digests are known."""
    digests = {
        path.stem.removeprefix("TINY_"): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
    }
    monkeypatch.setitem(checksums.DIGESTS, "TINY", digests)


@dataclass
class Site:
    """What the server has, how it behaves (one item of `answers` and `cuts` a request), what it did."""

    files: dict[str, bytes]
    address: str = ""
    tag: str | None = '"1"'
    ranges: bool = True
    claims: int | None = None
    answers: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        self.site.asked.append((self.path, self.headers["Range"]))
        status = self.site.answers.pop(0) if self.site.answers else 200
        body = self.site.files.get(self.path)
        start = self._start()
        if body is None:
            self.send_error(404)
        elif status != 200:
            self.send_error(status)
        elif start >= len(body):
            self.send_error(416)
        else:
            self._send(body, start)

    def _send(self, body: bytes, start: int) -> None:
        site = self.site
        site.sent.append(206 if start else 200)
        self.send_response(site.sent[-1])
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if site.tag is not None:
            self.send_header("ETag", site.tag)
        self.send_header("Content-Length", str(len(body) - start if site.claims is None else site.claims))
        self.end_headers()
        self.wfile.write(body[start:][: site.cuts.pop(0) if site.cuts else None])

    def _start(self) -> int:
        wanted = self.headers["Range"]
        condition = self.headers["If-Range"]
        current = condition is None or (condition == self.site.tag and not condition.startswith("W/"))
        if wanted is None or not self.site.ranges or not current:
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Site]:
    site = Site(files)
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
