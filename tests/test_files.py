"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from planner.errors import PlanError, ScenarioError
from planner.files import cache_folder, open_atomic, read_bounded, write_bytes_atomic, write_text_atomic
from planner.plan.store import load_plan
from planner.scenario.load import load_scenario, read_trace


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


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As is a device: an output to /dev/null must not put a file into its place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        write_text_atomic(pipe, "text")
        assert read.result(timeout=10) == "text"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_document_is_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device may have no end."""
    monkeypatch.setattr("planner.files.LARGEST_BYTES", 10)
    path = tmp_path / "scenario.yaml"
    path.write_bytes(b"0123456789")
    assert read_bounded(path) == b"0123456789"
    path.write_bytes(b"0123456789.")
    with pytest.raises(OSError, match="larger") as large:
        read_bounded(path)
    assert (large.value.errno, large.value.filename) == (errno.EFBIG, str(path))
    with pytest.raises(ScenarioError, match="larger than"):
        load_scenario(path)
    with pytest.raises(PlanError, match="larger than"):
        load_plan(path)
    with pytest.raises(ScenarioError, match="larger than"):
        read_trace(path)


def in_own_process(program: str, *arguments: object, umask: int) -> None:
    """Run a program under a umask of its own, which only a process can have."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    subprocess.run(command, check=True, umask=umask)


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_who_may_read_a_file_is_up_to_the_umask_unless_it_is_private(umask: int, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from planner.files import write_bytes_atomic as write;"
        "folder = Path(sys.argv[1]); write(folder / 'open', b''); write(folder / 'private', b'', private=True);"
        "(folder / 'plain').write_bytes(b'')"
    )
    in_own_process(program, tmp_path, umask=umask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"open": 0o666 & ~umask, "plain": 0o666 & ~umask, "private": 0o600}


@pytest.mark.slow
def test_files_of_other_threads_keep_to_the_umask_meanwhile(tmp_path: Path) -> None:
    program = """
import os, sys, threading, time
from pathlib import Path
import planner.files

folder, over, seen = Path(sys.argv[1]), threading.Event(), set()

def create():
    while not over.is_set():
        descriptor = os.open(folder / "other", os.O_CREAT | os.O_WRONLY, 0o666)
        seen.add(os.fstat(descriptor).st_mode & 0o777)
        os.close(descriptor)
        os.unlink(folder / "other")

def pause(frame, event, argument):
    if frame.f_code.co_filename == planner.files.__file__:
        time.sleep(0.002)  # after each line, the other thread has its turn
        return pause

thread = threading.Thread(target=create)
thread.start()
sys.settrace(pause)
for _ in range(10):
    planner.files.write_text_atomic(folder / "file", "text")
sys.settrace(None)
over.set()
thread.join()
sys.exit(None if seen == {0o600} else f"files were made with modes {sorted(map(oct, seen))}")
"""
    in_own_process(program, tmp_path, umask=0o077)


def test_a_file_is_on_the_disk_before_its_name_and_the_name_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "folder" / "file"
    synced: list[tuple[str, bytes | None]] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        there = Path(f"/proc/self/fd/{descriptor}").readlink()
        name = "the file" if there.is_file() else str(there.relative_to(tmp_path))
        if name == "the file":
            assert there.read_bytes() == b"new"
        synced.append((name, path.read_bytes() if path.exists() else None))

    monkeypatch.setattr(os, "fsync", watched)
    write_bytes_atomic(path, b"new")
    assert synced == [("the file", None), ("new/folder", b"new"), ("new", b"new"), (".", b"new")]
    path.write_bytes(b"old")
    del synced[:]
    write_bytes_atomic(path, b"new")
    assert synced == [("the file", b"old"), ("new/folder", b"new")]


@pytest.mark.slow
def test_caches_are_where_the_user_wants_them_and_a_user_without_a_home_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "mdi-planner"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "mdi-planner"
    code = """
import os, pwd
pwd.getpwuid = {}.__getitem__  # as for a user whom the system does not list
os.environ.pop("HOME")
import planner.runtime.providers
print(planner.files.cache_folder())
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{tmp_path / '.cache' / 'mdi-planner'}\n"
