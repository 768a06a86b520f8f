"""Pages: one template with style, script and data inside, which loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from string import Template
from typing import Any, Final

from planner.report.html.data import ReportData

_COMMON: Final = ("base.js", "map.js", "charts.js")
_REPORT: Final = (*_COMMON, "timeline.js", "report.js")
_LIVE: Final = (*_COMMON, "live.js")

REFRESH_S: Final = 1.0
"""How often the live page asks for the state, in seconds."""


def report_page(data: ReportData) -> str:
    """Return a report as an HTML page that contacts nobody."""
    return _page(data.title, _REPORT, data.model_dump(mode="json"), connect="'none'")


def live_page() -> str:
    """Return the page of a running service; it reads ``state``, relative to its own address, each second."""
    return _page("planner", _LIVE, {"refresh_s": REFRESH_S}, connect="'self'")


def _page(title: str, scripts: tuple[str, ...], data: Any, *, connect: str) -> str:
    style = _asset("page.css")
    script = '"use strict";\n' + "\n".join(map(_asset, scripts))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            f"connect-src {connect}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return Template(_asset("page.html")).substitute(
        title=html.escape(title), policy=html.escape(policy, quote=True), style=style, script=script, data=_json(data)
    )


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which a content security policy admits an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _json(data: Any) -> str:
    """Return data as JSON that cannot end the element that holds it, whatever the names in it are."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
