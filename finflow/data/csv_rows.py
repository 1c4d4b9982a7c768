"""Rows of a user's CSV as text: bytes, encoding, separators, header; what is wrong is named by line and column."""

import contextlib
import csv
import gzip
import io
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

from finflow.errors import DataError
from finflow.schema.env import PLAIN, Format

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Records = Iterable[tuple[int, list[str]]]
"""(line of the file, from 1; its cells)"""
SEPARATED = "columns are separated by"
_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


class FormatError(DataError):
    """A file that another `env.format` may be able to read."""


@contextlib.contextmanager
def read_as(key: str) -> Generator[None]:
    """Put `key=` before an error in that key's file, so that the user sees which setting names the file."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}={error}") from error


def read_bytes(path: Path) -> bytes:
    """Content of a user's file.

    Raises
    ------
    DataError
        If it is missing, a directory, or not to be read.
    """
    if path.is_dir():
        raise DataError(f"{path}: a directory, not a file; name a CSV file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def unpacked(path: Path, raw: bytes) -> bytes:
    """Content of a file that may be gzipped.

    Raises
    ------
    DataError
        If it is damaged.
    """
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}:1:1: a damaged .gz file ({error}); fetch it again, or unpack it") from None


def _decoded(path: Path, raw: bytes) -> str:
    if not raw.strip():
        raise DataError(f"{path}:1:1: the file is empty; write a header and rows below it")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}:1:1: UTF-16, not UTF-8; save the file as UTF-8")
    if b"\0" in raw or raw.startswith((b"PK\x03\x04", b"PAR1")):
        at = max(raw.find(b"\0"), 0)
        raise DataError(f"{path}:{_place(raw, at)}: binary data, not text; export the table as a CSV in UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{_place(raw, error.start)}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _place(raw: bytes, at: int) -> str:
    """`row:column` of byte `at`, both from 1."""
    start = raw.rfind(b"\n", 0, at) + 1
    return f"{raw.count(bytes([10]), 0, at) + 1}:{raw.count(b',', start, at) + 1}"


def text_rows(path: Path, raw: bytes | None = None, form: Format = PLAIN) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row of a CSV, its header too; blank lines are allowed at the end of the file only.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do`, when the row is reached.
    """
    text = _decoded(path, unpacked(path, read_bytes(path) if raw is None else raw))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_SEPARATORS[form.separator], strict=True)
    blank = start = end = 0
    try:
        for cells in reader:
            start, end = end + 1, reader.line_num
            if not any(c.strip() for c in cells):
                blank = blank or start
                continue
            if blank:
                raise DataError(f"{path}:{blank}:1: a blank line inside the table; delete it")
            yield start, cells
    except csv.Error as error:
        raise DataError(f"{path}:{end + 1}:1: not a CSV record ({error}); check its quotes") from None


def read_header(path: Path, cells: list[str]) -> tuple[str, ...]:
    """Names of the columns of a first row.

    Raises
    ------
    DataError
        If it is no header.
    """
    names = [c.strip() for c in cells]
    if len(names) == 1:
        separator = next((s for s in (";", "\t", "|") if s in names[0]), None)
        if separator:
            name = "tab" if separator == "\t" else separator
            raise FormatError(f"{path}:1:1: {SEPARATED} {name!r}; separate them by commas")
        raise DataError(f"{path}:1:2: only one column; put dates in the first and values in the others")
    if DAY.fullmatch(names[0]) or (names[0] and all(NUMBER.fullmatch(n) for n in names)):
        raise DataError(f"{path}:1:1: no header, the first row holds {names[0]!r}; add a row of column names")
    for number, name in enumerate(names[1:], start=2):
        if not name:
            raise DataError(f"{path}:1:{number}: a column without a name; name it or remove it")
        if name in names[1 : number - 1]:
            raise DataError(f"{path}:1:{name}: column {name!r} stands twice; keep one")
    return (names[0] or "1", *names[1:])


def check_width(path: Path, line: int, header: tuple[str, ...], cells: list[str]) -> None:
    """Refuse a row with more or fewer cells than the header.

    Raises
    ------
    DataError
        Naming the first column that lacks one, or is too many.
    """
    if len(cells) != len(header):
        where = header[len(cells)] if len(cells) < len(header) else str(len(header) + 1)
        raise DataError(
            f"{path}:{line}:{where}: {len(cells)} cells where the header has {len(header)}; "
            "give every row a cell per column, blank where there is no value, without thousands separators"
        )
