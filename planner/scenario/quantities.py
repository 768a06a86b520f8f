"""Quantities of scenario files, in SI units, and the base of their entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo

from planner.base import FrozenModel

QuantityReader = Callable[[object, str], float]
"""``reader(value, kind)`` returns the SI value of a quantity such as ``54 Mbit/s`` of kind ``bandwidth``."""


def _quantity(kind: str) -> BeforeValidator:
    def read(value: Any, info: ValidationInfo) -> Any:
        reader: QuantityReader | None = (info.context or {}).get("quantity")
        return value if reader is None or value is None else reader(value, kind)

    return BeforeValidator(read, json_schema_input_type=Annotated[str, Field(json_schema_extra={"quantity": kind})])


# The bounds are far beyond any real value. They reveal a wrong unit, and keep all products of quantities finite.
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), _quantity("time")]
Duration = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False), _quantity("time")]
Bytes = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False), _quantity("memory")]
BytesPerSecond = Annotated[float, Field(ge=1e-3, le=1e18, allow_inf_nan=False), _quantity("bandwidth")]
PerSecond = Annotated[float, Field(ge=1e-12, le=1e12, allow_inf_nan=False), _quantity("rate")]
Fraction = Annotated[float, Field(ge=0, le=1), _quantity("fraction")]
PositiveFraction = Annotated[float, Field(gt=0, le=1), _quantity("fraction")]
ProperFraction = Annotated[float, Field(ge=0, lt=1), _quantity("fraction")]
Watts = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), _quantity("power")]
Factor = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, le=10**12, strict=True)]
Tokens = Annotated[int, Field(ge=1, le=10**6, strict=True)]
Samples = Annotated[int, Field(ge=1, le=10**8, strict=True)]
Size = Annotated[int, Field(ge=0, le=10**12, strict=True)]


class Entry(FrozenModel):
    """Base of the entries of a scenario file; the docstrings of their attributes describe the keys to users."""

    model_config = ConfigDict(use_attribute_docstrings=True)
