"""Hooks of the documentation site: links that leave ``docs/`` lead nowhere in the site, so they become plain text."""

from __future__ import annotations

import re
from typing import Any

_LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^][]|\[[^][]*\])+)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page whose links to files of the repository are their text."""
    return _LINK.sub(lambda match: match["text"], markdown)
