"""Real files that cases are made from, and a folder for the files that a reader opens."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]


@cache
def folder() -> Path:
    """Return the folder of this process, which is deleted at its end."""
    path = Path(tempfile.mkdtemp(prefix="planner-fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def one_of(case: bytes, names: Sequence[str]) -> str:
    """Return one of the names, always the same for a case: what takes long is done in one way only."""
    return names[zlib.crc32(case) % len(names)]


def put(name: str, content: bytes) -> Path:
    """Write a file and return its path."""
    path = folder() / name
    path.write_bytes(content)
    return path


def yaml_file(path: str) -> Any:
    """Return the values of a YAML file of the repository."""
    return YAML(typ="safe").load(ROOT / path)


def json_file(path: str) -> Any:
    """Return the values of a JSON file of the repository."""
    return json.loads((ROOT / path).read_text(encoding="utf-8"))
