"""Atomic writes, which a power failure does not leave incomplete either; the folder of caches."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, TypeVar

StrPath = str | os.PathLike[str]
"""A path as a caller may give it."""
_P = TypeVar("_P", bound=StrPath)


def several(given: _P | Iterable[_P]) -> list[_P]:
    """Return names or paths of which a caller may also give one alone; a text is one, not its letters."""
    if isinstance(given, (str, os.PathLike)):
        return [given]
    return list(given)


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
