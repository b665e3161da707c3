"""One file over HTTP: resumed when it breaks off, restarted when it cannot be, complete or absent."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import cast
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from readouts.commands.progress import Progress
from readouts.commands.tu.errors import DataError

ATTEMPTS = 4
FIRST_PAUSE = 0.5  # seconds, doubled after every attempt
TIMEOUT = 30.0  # seconds without a byte
LONGEST = 3600.0  # seconds in all
MOST_BYTES = 4 << 30  # several times the largest set
CHUNK = 1 << 16  # bytes

PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


class NotOnSiteError(DataError):
    """The site answered, and has no such file."""


class BrokenOffError(Exception):
    """One attempt failed in a way that the next may not."""


def download(url: str, target: Path) -> None:
    """Fetch `url` into `target`, by way of `target` + ".part", which outlives a failure to be resumed.

    Raises `NotOnSiteError` where the server has no such file, `DataError` where it stays unreachable or
    refuses, or sends too many bytes or too slowly, and `OSError` where the disk does not take the bytes.
    """
    part, deadline, progress = Partial(target), time.monotonic() + LONGEST, Progress()
    for attempt in range(ATTEMPTS):
        try:
            _attempt(url, part, deadline, progress)
        except BrokenOffError as error:
            reason = error
            if attempt + 1 < ATTEMPTS:
                time.sleep(FIRST_PAUSE * 2**attempt)
        else:
            part.finish()
            return
    raise DataError(
        f"cannot download {url} ({reason}); try again later, or name a folder that has the set with --mirror"
    )


@dataclass(frozen=True)
class Source:
    """What a partial file is the beginning of: `size` bytes in all, of the version named `validator`."""

    url: str
    size: int | None
    validator: str | None


@dataclass(frozen=True)
class Partial:
    """The beginning of a file, with a note beside it that says of which one."""

    target: Path

    @property
    def bytes(self) -> Path:
        """What has arrived."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def note(self) -> Path:
        """The `Source`, as JSON."""
        return self.target.with_name(self.target.name + ".part.json")

    def begun(self, url: str) -> Source | None:
        """What the bytes are the beginning of; None where `url` cannot be resumed with them."""
        try:
            source = Source(**json.loads(self.note.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return source if source.url == url and source.size is not None and self.bytes.exists() else None

    def length(self) -> int:
        """How many bytes are there."""
        return self.bytes.stat().st_size

    def restart(self, source: Source) -> None:
        """Forget the bytes; those that follow belong to `source`."""
        self.discard()
        self.note.write_text(json.dumps(asdict(source)))

    def discard(self) -> None:
        """Remove the bytes, then the note: at no time does a note stand beside another source's bytes."""
        self.bytes.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Move the bytes to the target."""
        os.replace(self.bytes, self.target)
        self.note.unlink(missing_ok=True)


def _attempt(url: str, part: Partial, deadline: float, progress: Progress) -> None:
    """Ask for what is missing and write it; on return the partial file is complete."""
    begun = part.begun(url)
    with _open(url, part, begun) as response:
        if begun is None or response.status != HTTPStatus.PARTIAL_CONTENT:
            begun = Source(url, _content_length(response), _validator(response))
            part.restart(begun)
        elif not _continues(response, part, begun):
            part.discard()
            raise BrokenOffError("the server sent another range than the one asked for")
        length = part.length() if part.bytes.exists() else 0
        resumed = length
        if max(length, begun.size or 0) > MOST_BYTES:
            raise DataError(f"{url} has {begun.size} bytes, more than any data set")
        with part.bytes.open("ab") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                length += len(chunk)
                share = (length - resumed) / (begun.size - resumed) if begun.size else None
                progress(f"{url}: {length / 1e6:.1f} MB", share)
                if length > MOST_BYTES:
                    part.discard()
                    raise DataError(f"{url} sends more than {MOST_BYTES} bytes, more than any data set")
                if time.monotonic() > deadline:
                    slow = f"{url} is too slow: {length} bytes after {LONGEST / 60:.0f} minutes"
                    raise DataError(f"{slow}; a new attempt continues")
    if begun.size is not None and part.length() != begun.size:
        raise BrokenOffError(f"the connection ended after {part.length()} of {begun.size} bytes")


def _open(url: str, part: Partial, begun: Source | None) -> http.client.HTTPResponse:
    headers = {"User-Agent": "readouts"}
    if begun is not None:
        headers["Range"] = f"bytes={part.length()}-"
        if begun.validator is not None:
            headers["If-Range"] = begun.validator
    try:
        return cast(http.client.HTTPResponse, urlopen(Request(url, headers=headers), timeout=TIMEOUT))
    except HTTPError as error:
        error.close()
        if error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise NotOnSiteError(f"{url} does not exist") from error
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.discard()
        elif error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in PASSING:
            raise DataError(f"{url} is refused: {error.code} {error.reason}") from error
        raise BrokenOffError(f"{error.code} {error.reason}") from error
    except (ValueError, http.client.InvalidURL) as error:
        raise DataError(f"{url} is not an address that can be fetched: {error}") from error
    except URLError as error:
        raise BrokenOffError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOffError(str(error) or type(error).__name__) from error


def _continues(response: http.client.HTTPResponse, part: Partial, begun: Source) -> bool:
    sent = response.headers["Content-Range"] or ""
    return sent.startswith(f"bytes {part.length()}-") and sent.endswith(f"/{begun.size}")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(CHUNK):  # what is there, not a full chunk
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOffError(str(error) or type(error).__name__) from error


def _content_length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers["Content-Length"]
    return int(length) if length is not None and length.isdecimal() else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    """The strong ETag, else the date: what HTTP allows in If-Range."""
    tag: str | None = response.headers["ETag"]
    return tag if tag is not None and not tag.startswith("W/") else response.headers["Last-Modified"]
