"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from planner.files import open_atomic, write_text_atomic


def test_what_breaks_off_leaves_nothing_and_keeps_what_was(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_text_atomic(path, "before")
    with pytest.raises(KeyboardInterrupt), open_atomic(path) as file:  # noqa: PT012 - a write that breaks off
        file.write(b"after")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named_and_its_temporary_one_gone(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as folder:
        write_text_atomic(tmp_path, "text")
    assert folder.value.filename == str(tmp_path)
    with pytest.raises(OSError, match="No space left") as full, open_atomic(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write tells it, without a name
    assert full.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_stays_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing, open_atomic(tmp_path / "file") as file:
        file.write((tmp_path / "missing").read_bytes())
    assert missing.value.filename == str(tmp_path / "missing")
