"""Where the text files of a TU set lie: in a mirror, in the cache, or on the TU site."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from readouts.commands.tu import checksums, names
from readouts.commands.tu.download import NotOnSiteError, download
from readouts.commands.tu.errors import DataError
from readouts.commands.tu.unzip import DamagedArchiveError, unpack

SITE = "https://www.chrsmrrs.com/graphkerneldatasets"


def raw_folder(name: str, mirror: str | Path | None = None, cache: str | Path | None = None) -> Path:
    """The folder that holds `NAME_A.txt` and its siblings, fetched and unpacked where it has to be.

    A set with known digests is cached under its name, whatever its source; any other under its name and
    source, because two mirrors may have different sets under one name. Raises `DataError`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise DataError(f"{name!r} is not the name of a data set: these have letters, digits, - and _ only")
    root = Path(cache or os.environ.get("READOUTS_CACHE") or _default_cache()).expanduser()
    source = str(mirror or os.environ.get("READOUTS_TU_MIRROR") or SITE)
    if mirror and not str(mirror).startswith(("http://", "https://")):
        _local(str(mirror))  # a mistyped folder is an error, also where the cache makes it needless
    if name in checksums.DIGESTS and (root / name).is_dir():
        return root / name
    if source.startswith(("http://", "https://")):
        return _from_site(name, source.rstrip("/"), root)
    return _from_folder(name, _local(source), root)


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "readouts" / "tu"


def _local(source: str) -> Path:
    folder = (
        Path(url2pathname(urlsplit(source).path)) if source.startswith("file:") else Path(source).expanduser()
    )
    if not folder.is_dir():
        raise DataError(f"the mirror {source} is neither a folder nor an http, https or file address")
    return folder


def _from_folder(name: str, mirror: Path, root: Path) -> Path:
    """A set from a mirror on the disk: read in place where it is unpacked, else from its archive."""
    archive = mirror / f"{name}.zip"
    if (unpacked := _texts_in(mirror / name, name)) is not None:
        return unpacked
    if not archive.is_file():
        held = _names_in(mirror)
        raise DataError(
            f"there is no data set {name!r} in {mirror}, which holds {', '.join(held) or 'none'}"
            + _did_you_mean(name, held)
        )
    state = archive.stat()
    target = root / _key(name, f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}")
    with _installing(target) as workshop:
        if workshop is not None:
            _install(archive, name, workshop, target, source=archive)
    return target


def _from_site(name: str, site: str, root: Path) -> Path:
    """A set from the net."""
    target = root / (name if site == SITE else _key(name, site))
    with _installing(target) as workshop:
        if workshop is not None:
            try:
                _download_and_install(f"{site}/{name}.zip", name, workshop, target)
            except NotOnSiteError as error:
                hint = _did_you_mean(name, names.SITE)
                raise DataError(f"there is no data set {name!r} at {site}{hint}") from error
            except DamagedArchiveError:
                raise
            except DataError as error:
                hint = "" if name in names.SITE else _did_you_mean(name, (*names.SITE, "rings"))
                raise DataError(f"{error}{hint}") from error
    return target


def _download_and_install(url: str, name: str, workshop: Path, target: Path) -> None:
    """Fetch and install; a damaged archive is fetched once more, from its first byte."""
    archive = target.with_name(f"{target.name}.zip")
    try:
        download(url, archive)
        _install(archive, name, workshop / "first", target, source=url)
    except DamagedArchiveError:
        download(url, archive)
        _install(archive, name, workshop / "second", target, source=url)
    finally:
        archive.unlink(missing_ok=True)


def _key(name: str, source: str) -> str:
    if name in checksums.DIGESTS:
        return name
    return f"{name}@{hashlib.sha256(source.encode()).hexdigest()[:12]}"


@contextmanager
def _installing(target: Path) -> Iterator[Path | None]:
    """A folder beside `target` to unpack into, for one process at a time; None where `target` is there.

    Whatever a killed process left behind is swept away by the next: under the lock it has no owner.
    """
    root = target.parent
    if target.is_dir():
        yield None
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{target.name}.lock"):
            for leftover in root.glob(f"{target.name}.*.tmp"):
                shutil.rmtree(leftover)
            if target.is_dir():  # another process was faster
                yield None
                return
            workshop = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".tmp", dir=root))
            try:
                yield workshop
            finally:
                shutil.rmtree(workshop, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot keep {target.name} in {root} ({error}); "
            "make room there, or name another folder in READOUTS_CACHE"
        ) from error


def _install(archive: Path, name: str, workshop: Path, target: Path, source: str | Path) -> None:
    """Unpack, check, and only then give the folder its name, in one step."""
    try:
        unpack(archive, workshop)
    except DataError as error:
        raise type(error)(f"{source} is refused: {error}") from error
    texts = _texts_in(workshop, name) or _deeper_texts_in(workshop, name)
    if texts is None:
        raise DataError(f"{source} holds no file {name}_A.txt, so it is not the TU set {name}")
    checksums.verify(name, texts, source)
    texts.rename(target)


def _texts_in(folder: Path, name: str) -> Path | None:
    """The folder with the text files: this one, or the one that archives or PyG put into it."""
    places = (folder, folder / name, folder / "raw")
    return next((place for place in places if (place / f"{name}_A.txt").is_file()), None)


def _deeper_texts_in(folder: Path, name: str) -> Path | None:
    """The folder with the text files that is the least deep, of those in a whole tree."""
    found = sorted(folder.rglob(f"{name}_A.txt"), key=lambda path: (len(path.parts), path))
    return found[0].parent if found else None


def _names_in(mirror: Path) -> list[str]:
    archives = {path.stem for path in mirror.glob("*.zip")}
    unpacked = {path.name for path in mirror.iterdir() if path.is_dir() and _texts_in(path, path.name)}
    return sorted(archives | unpacked)


def _did_you_mean(name: str, names: tuple[str, ...] | list[str]) -> str:
    by_lower_case = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), by_lower_case)
    return f"; did you mean {' or '.join(by_lower_case[known] for known in close)}?" if close else ""
