"""Write the published JSON Schemas: ``python -m tests.api.schema_files``."""

from __future__ import annotations

import json
from pathlib import Path

from planner.api.schemas import SCHEMA_KINDS, json_schema
from planner.files import write_text_atomic

FOLDER = Path(__file__).parents[2] / "docs/schemas"


def schema_text(kind: str) -> str:
    """Return the text of the file that is published for a kind of file."""
    return json.dumps(json_schema(kind), indent=1) + "\n"


def main() -> None:
    """Write the schema of every kind of file."""
    for kind in SCHEMA_KINDS:
        write_text_atomic(FOLDER / f"{kind}.schema.json", schema_text(kind))


if __name__ == "__main__":
    main()
