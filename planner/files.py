"""Atomic writes, which a power failure does not leave incomplete either; bounded reads; the folder of caches."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

StrPath = str | os.PathLike[str]
"""A path as a caller may give it."""
LARGEST_BYTES: Final = 256 * 2**20
"""Largest size of a document that is read."""
_CHUNK_BYTES: Final = 2**20
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


def read_bounded(path: StrPath) -> bytes:
    """Return the contents of a file that a user gives: a scenario, a plan, a profile and the like.

    Raises
    ------
    OSError
        If the file cannot be read, or is larger than :data:`LARGEST_BYTES`; a device such as ``/dev/zero`` has no end.
    """
    chunks, size = [], 0
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_BYTES:
                raise OSError(errno.EFBIG, f"larger than {LARGEST_BYTES >> 20} MiB", str(path))
    return b"".join(chunks)


@contextmanager
def open_atomic(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path`` that replaces it at the end; parent folders are created.

    The contents are on disk before the file is replaced, and the replacement is on disk before this returns. A device
    or a pipe, such as ``/dev/stdout``, is written to and never replaced.

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
        if _is_device(path):
            with path.open("wb") as file:
                yield file
            return
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


def _is_device(path: Path) -> bool:
    """Return whether a path leads to something that is neither a regular file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


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
