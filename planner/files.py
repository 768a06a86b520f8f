"""Files written whole or not at all, also where the power fails."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

StrPath = str | os.PathLike[str]
"""A path as a caller may give it."""


@contextmanager
def open_atomic(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Give a temporary file beside ``path`` that takes its place at the end; parent folders are made.

    Its contents are on the disk before it takes that place, and the place is before this returns.

    Parameters
    ----------
    private
        Whether only its owner may read the file; else who may is up to the process's umask.

    Raises
    ------
    OSError
        The file cannot be written; it is the one named, not the temporary one.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    made = list(takewhile(lambda folder: not folder.exists(), path.parents))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The kernel applies the umask: to ask for it, a process has to change it, under the feet of its other threads.
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
        for folder in (path.parent, *(new.parent for new in made)):
            _sync_folder(folder)
    except OSError as error:
        if error.filename is None or Path(error.filename) == temporary:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_bytes_atomic(path: Path, data: bytes | memoryview, *, private: bool = False) -> None:
    """Write ``data`` to ``path`` by way of a temporary file beside it; parent folders are made."""
    with open_atomic(path, private=private) as file:
        file.write(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` by way of a temporary file beside it."""
    write_bytes_atomic(path, text.encode())


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # as file systems say it that write names at once, or cannot be told to
            raise
    finally:
        os.close(descriptor)
