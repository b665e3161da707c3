"""Unpack untrusted archives safely."""

from __future__ import annotations

import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from readouts.commands.tu.errors import DataError

MOST_MEMBERS = 1000
MOST_BYTES = 8 << 30
MOST_FOLDERS = 16  # that a member lies in, one within the other
MOST_EXPANSION = 100
ALWAYS_ALLOWED = 64 << 20  # bytes that even the smallest archive may expand to
CHUNK = 1 << 16  # bytes

# What zipfile and the decompressors raise on bytes that are not what they seem.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class DamagedArchiveError(DataError):
    """The archive cannot be read; another copy of it may be whole."""


def unpack(archive: Path, folder: Path) -> None:
    """Write the members of a zip `archive` below `folder`.

    Raises `DamagedArchiveError` where the archive cannot be read, `DataError` where a member escapes from
    the folder, is a link, lies too deep or comes twice, or where more is unpacked than the archive's size
    explains, and `OSError` where the disk does not take the bytes. What was written until then stays.
    """
    allowance = min(MOST_BYTES, max(ALWAYS_ALLOWED, MOST_EXPANSION * archive.stat().st_size))
    with _opened(archive) as bundle:
        members = bundle.infolist()
        if len(members) > MOST_MEMBERS:
            raise DataError(f"it holds {len(members)} files, more than any data set")
        for member in members:
            path = _inner_path(member)
            if not member.is_dir():
                allowance -= _write(bundle, member, folder / path, allowance)


def _opened(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except DAMAGE as error:
        raise DamagedArchiveError(f"it is damaged or not a zip archive ({error})") from error


def _inner_path(member: zipfile.ZipInfo) -> PurePosixPath:
    """The path of a member inside the folder, or `DataError`."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in member.filename:
        raise DataError(f"{member.filename!r} would be written outside its folder")
    if len(path.parts) > MOST_FOLDERS + 1:
        raise DataError(f"{member.filename[:40]!r}... lies {len(path.parts) - 1} folders deep")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"{member.filename!r} is a link or a device, not a file")
    return path


def _write(bundle: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, allowance: int) -> int:
    """Write one member and return its size; headers may lie about it, so the bytes themselves are counted."""
    written = 0
    with _created(member, target) as file:
        for chunk in _chunks(bundle, member):
            written += len(chunk)
            if written > allowance:
                raise DataError("it unpacks to more bytes than its size explains")
            file.write(chunk)
    return written


def _created(member: zipfile.ZipInfo, target: Path) -> BinaryIO:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{member.filename!r} comes twice") from error


def _chunks(bundle: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with bundle.open(member) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except DAMAGE as error:
        raise DamagedArchiveError(f"it is damaged at {member.filename!r} ({error})") from error
