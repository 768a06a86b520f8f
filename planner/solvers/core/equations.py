"""The form in which methods state their programs, for the page that describes them (``docs/program.md``)."""

from __future__ import annotations

from typing import NamedTuple


class Equation(NamedTuple):
    """A variable, an objective, a constraint or a bound: its meaning in words, and its general form in LaTeX."""

    meaning: str
    latex: str

    @property
    def doc(self) -> str:
        """Both, on a line each: the ``doc`` of a component of a Pyomo model."""
        return f"{self.meaning}\n{self.latex}"

    @classmethod
    def of_doc(cls, doc: str) -> Equation:
        """Return the equation of a ``doc``."""
        meaning, _, latex = doc.partition("\n")
        return cls(meaning, latex)
