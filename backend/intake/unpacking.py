"""Unpacking: a stream of bytes as it was before somebody compressed it.

gzip, bzip2, xz and zip with one member are recognised by their first bytes, whatever the file is
called. Damage is found where it is and never taken for the end.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from typing import Any, BinaryIO

BLOCK = 1 << 16

Damaged = (gzip.BadGzipFile, zlib.error, EOFError, lzma.LZMAError, zipfile.BadZipFile)
"""What reading raises when compressed data is not whole. bzip2 raises an OSError without a number."""


PACKINGS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
}
BEGINNING_BYTES = 6
"""As much of a stream tells how it is packed."""


class UnreadableFile(ValueError):
    """The file is not what its format says. Says which file, where, and what to do."""


def opened(stream: BinaryIO, *, packed: bool = True) -> io.BufferedReader:
    """The stream, unpacked if it is compressed and may be. The caller's stream stays open."""
    whole: io.BufferedReader = io.BufferedReader(_Prefixed(stream), BLOCK)
    if packed:
        whole = _unpacked(whole, stream)
    if whole.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableFile("is in UTF-16; export it as UTF-8")
    return whole


def packing_of(start: bytes) -> str:
    """What a stream that begins like this is packed with; "" for a plain one."""
    found = next((name for first, name in PACKINGS.items() if start.startswith(first)), "")
    # bzip2 begins with letters that a text may begin with, and a number that none does.
    return "" if found == "bzip2" and start[4:6] not in (b"1A", b"\x17r") else found


def is_damage(error: Exception) -> bool:
    """Whether reading failed because compressed data is not whole."""
    return isinstance(error, Damaged) or (isinstance(error, OSError) and error.errno is None)


def _unpacked(whole: io.BufferedReader, stream: BinaryIO) -> io.BufferedReader:
    match packing_of(whole.peek(BEGINNING_BYTES)[:BEGINNING_BYTES]):
        case "gzip":
            return io.BufferedReader(gzip.GzipFile(fileobj=whole), BLOCK)
        case "bzip2":
            return io.BufferedReader(bz2.BZ2File(whole), BLOCK)
        case "xz":
            return io.BufferedReader(lzma.LZMAFile(whole), BLOCK)
        case "zip":
            return _only_member(stream)
        case "zstd":
            raise UnreadableFile("is compressed with zstd, which is not understood; use gzip, bzip2 or xz")
    return whole


def _only_member(stream: BinaryIO) -> io.BufferedReader:
    if not stream.seekable():
        raise UnreadableFile("is a zip, which cannot be read from a pipe; name the file, or use gzip")
    stream.seek(0)
    archive = zipfile.ZipFile(stream)
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise UnreadableFile(f"is a zip of {len(members)} files; unpack it and import them one by one")
    if members[0].flag_bits & 1:
        raise UnreadableFile("is a zip with a password; unpack it, and import what it holds")
    return io.BufferedReader(archive.open(members[0]), BLOCK)  # type: ignore[arg-type]


class _Prefixed(io.RawIOBase):
    """Any stream that can `read`, for a BufferedReader, which wants `readinto`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)
