"""Storage of profiles in files ``<folder>/<device-class>/<model>.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from planner.errors import ProfileError
from planner.files import StrPath, read_bounded, write_text_atomic
from planner.formats.json import parse_json
from planner.profiling.types import SCHEMA, Profile
from planner.schemas import other_kind, schema_fault, schema_faults

FORMER_CHAIN: Final = (
    "on Python 3.10, earlier versions computed another chain_sha256 for models with external data: in such a profile, "
    "replace it by the one that `planner inspect` prints"
)
"""Hint for profiles of one model that name different chains."""


_LONGEST_NAME: Final = 200
"""Bytes of a name; file systems allow 255, and a suffix follows."""


def profile_path(folder: StrPath, device_class: str, model: str) -> Path:
    """Return the file of the profile of ``model`` on ``device_class``.

    Raises
    ------
    ProfileError
        If one of them is no plain name, but leads to another folder, for example.
    """
    for what, name in (("device class", device_class), ("model", model)):
        if name in {"", ".."} or name != Path(name).name or len(name.encode(errors="replace")) > _LONGEST_NAME:
            expected = f"a name of at most {_LONGEST_NAME} bytes without /, such as jetson-nano"
            raise ProfileError(f"the name of a {what} cannot be that of a file", value=name, expected=expected)
    return Path(folder) / device_class / f"{model}.json"


def save_profile(profile: Profile, path: StrPath) -> None:
    """Write a profile atomically; what it does not know is left out."""
    found = profile.model_dump(mode="json", by_alias=True)
    document = {key: value for key, value in found.items() if value is not None}
    write_text_atomic(Path(path), json.dumps(document, indent=1, allow_nan=False) + "\n")


def load_profile(path: StrPath) -> Profile:
    """Return the profile in a file.

    Raises
    ------
    ProfileError
        If the file is missing, is not JSON, has another schema, or contains invalid values: with one fault per value.
    """
    path = Path(path)
    content = b""
    try:
        content = read_bounded(path)
        document = parse_json(content)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise ProfileError(f"profile cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        if fault := other_kind(content, SCHEMA, f"{path}: schema"):
            raise ProfileError([fault]) from None
        raise ProfileError(f"profile is not JSON: {error}", where=str(path)) from error
    return _validated(document, path)


def _validated(document: object, path: Path) -> Profile:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        schema = document.get("schema") if isinstance(document, dict) else None
        raise ProfileError([schema_fault(schema, SCHEMA, f"{path}: schema")])
    try:
        return Profile.model_validate(document)
    except ValidationError as error:
        raise ProfileError(schema_faults(error, Profile, str(path))) from error


def _missing(path: Path) -> ProfileError:
    device_class, model = path.parent.name or "CLASS", path.stem
    return ProfileError(
        f"no profile of {model} on {device_class}",
        where=str(path),
        expected=f"a file written by `planner profile measure {model}.onnx --device-class {device_class} -o {path}`",
    )
