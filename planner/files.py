"""Atomic writes, which a power failure does not leave incomplete either; strict JSON; the folder of caches."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

StrPath = str | os.PathLike[str]
"""A path as a caller may give it."""


def real_path(path: StrPath) -> Path:
    """Return the absolute path behind all links; where links form a loop, the path of the first of them.

    ``Path.resolve`` raises ``RuntimeError`` for a loop, before Python 3.13.
    """
    return Path(os.path.realpath(path))


def cache_folder() -> Path:
    """Return the user's folder for files that can be made again; without a home folder, one in the current folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "mdi-planner"
    try:
        return Path.home() / ".cache" / "mdi-planner"
    except RuntimeError:  # a user without an entry in the system's list
        return Path(".cache").absolute() / "mdi-planner"


def shipped_file(relative: str) -> Path:
    """Return a file that comes with the project: next to the package in a checkout, inside it where it is installed.

    Raises
    ------
    FileNotFoundError
        It is in neither.
    """
    package = Path(__file__).parent
    for base in (package.parent, package):
        if (base / relative).is_file():
            return base / relative
    raise FileNotFoundError(errno.ENOENT, "is not installed", relative)


@contextmanager
def open_atomic(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path`` that replaces it at the end; parent folders are created.

    The contents are on disk before the file is replaced, and the replacement is on disk before this returns.

    Parameters
    ----------
    private
        Whether only the owner may read the file. Otherwise the umask of the process decides.

    Raises
    ------
    OSError
        If the file cannot be written; the error names ``path``, not the temporary file.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    new_folders = list(takewhile(lambda folder: not folder.exists(), path.parents))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The kernel applies the umask. Reading it would change it for a moment, which affects other threads.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        for folder in (path.parent, *(new.parent for new in new_folders)):
            _sync_folder(folder)
    except OSError as error:
        if error.filename is None or Path(error.filename) == temporary:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_bytes_atomic(path: Path, data: bytes | memoryview, *, private: bool = False) -> None:
    """Write ``data`` to ``path`` atomically; parent folders are created."""
    with open_atomic(path, private=private) as file:
        file.write(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically; parent folders are created."""
    write_bytes_atomic(path, text.encode())


def parse_json(data: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises
    ------
    ValueError
        If the text is not JSON, is nested too deeply, or has a number that is not finite (Python's reader accepts
        ``NaN``, ``Infinity`` and ``1e999``). The message says where it is, as in ``[3].dur``.
    """
    strange: list[str] = []

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            strange.append(text if len(text) < 30 else f"a number of {len(text)} characters")
        return value

    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
        huge = re.search(r"\d{300}", text)  # integers are not read by a function otherwise, which would be slow
        document = json.loads(text, parse_float=number, parse_constant=number, parse_int=number if huge else None)
        place = next(_strange_places(document), "a repeated key") if strange else ""
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if strange:
        raise ValueError(f"{place}: a number must be finite; found {strange[0]}")
    return json.loads(text) if huge else document


def _strange_places(value: object, place: str = "") -> Iterator[str]:
    """Yield the place of each number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place.removeprefix(".") or "top level"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strange_places(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strange_places(inner, f"{place}[{index}]")


def _sync_folder(folder: Path) -> None:
    """Write the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system does not support it, or does not need it
            raise
    finally:
        os.close(descriptor)
