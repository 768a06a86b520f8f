"""Hooks of the documentation site, which reads the same pages as people do in the repository.

Links that leave ``docs/`` lead nowhere in the site, so they become plain text. Equations in TeX become MathML, which
browsers draw without a script.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^][]|\[[^][]*\])+)\]\(\.\./[^)]*\)")
_TEX = re.compile(
    r"^```.*?^```$|^ {4}.*?$|`[^`\n]+`"  # code, which may contain dollars
    r"|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$",
    re.MULTILINE | re.DOTALL,
)
_PLACE = "tex-{}-tex"
"""Stands for an equation while Markdown is read, which would take its signs for its own."""


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return a page whose links to files of the repository are their text, and remember its equations."""
    equations: list[str] = []

    def remember(match: re.Match[str]) -> str:
        tex = match["block"] or match["inline"]
        if tex is None:
            return match[0]
        equations.append(convert(tex.strip(), display="block" if match["block"] else "inline"))
        return _PLACE.format(len(equations) - 1)

    text = _TEX.sub(remember, _LINK.sub(lambda match: match["text"], markdown))
    page.meta["equations"] = equations
    return text


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Return a page with its equations."""
    return re.sub(_PLACE.format(r"(\d+)"), lambda match: page.meta["equations"][int(match[1])], html)
