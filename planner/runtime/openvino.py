"""Options of the OpenVINO plug-in, which takes most of them only within a text of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from planner.errors import RuntimeSessionError

CONFIG: Final = "load_config"
"""Option with the properties of each kind of device, as JSON or as a file of it."""
FULL_PRECISION: Final = json.dumps({kind: {"INFERENCE_PRECISION_HINT": "f32"} for kind in ("CPU", "GPU")})
_THREADS: Final = "INFERENCE_NUM_THREADS"


def with_threads(options: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the options with a number of threads for the CPU, unless they have one, or name a file.

    Raises
    ------
    RuntimeSessionError
        If the properties are no JSON object.
    """
    text = options.get(CONFIG, "{}")
    if not text.lstrip().startswith("{"):
        return dict(options)
    try:
        properties: dict[str, dict[str, Any]] = json.loads(text)
        processors = {_THREADS: str(threads), **properties.get("CPU", {})}
    except (ValueError, TypeError) as error:
        raise RuntimeSessionError(
            "not the properties of OpenVINO's devices",
            where=f"--provider-option {CONFIG}", value=text, expected='JSON such as {"CPU": {"NUM_STREAMS": "1"}}',
        ) from error  # fmt: skip
    return {**options, CONFIG: json.dumps({**properties, "CPU": processors})}
