"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_atomic(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Give a temporary file beside ``path`` that takes its place at the end; parent folders are made.

    Parameters
    ----------
    private
        Whether only its owner may read the file; else who may is up to the process's umask.

    Raises
    ------
    OSError
        The file cannot be written; it is the one named, not the temporary one.
    """
    prefix = f".{path.name}."
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=prefix, dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        if not private:  # as which it was made
            mask = os.umask(0)
            os.umask(mask)
            Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and Path(error.filename or prefix).name.startswith(prefix):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_bytes_atomic(path: Path, data: bytes | memoryview, *, private: bool = False) -> None:
    """Write ``data`` to ``path`` by way of a temporary file beside it; parent folders are made."""
    with open_atomic(path, private=private) as file:
        file.write(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` by way of a temporary file beside it."""
    write_bytes_atomic(path, text.encode())
