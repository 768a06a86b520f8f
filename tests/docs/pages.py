"""Commands of pages, as tests run them."""

from __future__ import annotations

import re
import shlex
from typing import Final

QUICKLY: Final = {
    "profile measure": ("--budget", "0.5s"),
    "probe-device": ("--budget", "0.1s"),
    "solve": ("--time-limit", "1s"),
    "compare": ("--time-limit", "0.5s"),
    "pareto": ("--time-limit", "1s"),
    "simulate": ("--repeat", "2"),
    "validate": ("--samples", "5"),
}
"""Options that keep tests short, by command; a smaller number on the page is left."""

QUICKLY_CALLED: Final = {
    'device_class="this-machine")': 'device_class="this-machine", budget_s=0.5)',
    "time_limit_s=10)": "time_limit_s=1.0)",
    'place="local")': 'place="local", max_samples=5)',
    "replications=5)": "replications=2)",
}
"""Arguments that keep tests short, by the end of a call in a program."""


def commands(text: str) -> list[str]:
    """Return the commands of a page, without comments, joined where a backslash ends a line."""
    joined = re.sub(r" *\\\n +", " ", text)
    return [
        line.partition(" #")[0].strip()
        for line in re.findall(r"^ {4,6}(?:\$ )?(planner .+)$", joined, flags=re.MULTILINE)
    ]


def quick_program(text: str) -> str:
    """Return a program whose calls take a short time."""
    for long, short in QUICKLY_CALLED.items():
        text = text.replace(long, short)
    return text


def quick_words(command: str) -> list[str]:
    """Return the words of a command after ``planner``, with the option that keeps it short."""
    words = shlex.split(command)[1:]
    for name, (option, value) in QUICKLY.items():
        if words[: len(name.split())] == name.split():
            given = words.index(option) if option in words else len(words)
            number = words[given + 1 : given + 2]
            if not (number and number[0].isdigit() and value.isdigit() and int(number[0]) < int(value)):
                words[given : given + 2] = [option, value]
    return words
