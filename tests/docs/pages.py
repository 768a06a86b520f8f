"""Commands of pages, as tests run them."""

from __future__ import annotations

import re
import shlex
from typing import Final

QUICKLY: Final = {
    "profile measure": ("--budget", "5s"),
    "probe-device": ("--budget", "10s"),
    "solve": ("--time-limit", "6s"),
    "compare": ("--time-limit", "2s"),
    "pareto": ("--time-limit", "5s"),
    "simulate": ("--repeat", "2"),
    "validate": ("--samples", "20"),
}
"""Options that keep tests short, by command."""


def commands(text: str) -> list[str]:
    """Return the commands of a page, without comments, joined where a backslash ends a line."""
    joined = re.sub(r" *\\\n +", " ", text)
    return [
        line.partition(" #")[0].strip()
        for line in re.findall(r"^ {4,6}(?:\$ )?(planner .+)$", joined, flags=re.MULTILINE)
    ]


def quick_words(command: str) -> list[str]:
    """Return the words of a command after ``planner``, with the option that keeps it short."""
    words = shlex.split(command)[1:]
    for name, (option, value) in QUICKLY.items():
        if words[: len(name.split())] == name.split():
            given = words.index(option) if option in words else len(words)
            words[given : given + 2] = [option, value]
    return words
