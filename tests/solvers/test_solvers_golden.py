from __future__ import annotations

import json

import pytest

from tests.solvers.golden import FOLDER, Form, golden_forms


def test_every_constraint_equals_its_golden_file() -> None:
    """After an intended change, run ``make golden`` and review the difference."""
    golden: dict[str, Form] = {path.stem: json.loads(path.read_text()) for path in FOLDER.iterdir()}
    forms = golden_forms()
    assert forms.keys() == golden.keys()
    for name, form in forms.items():
        assert form.keys() == golden[name].keys(), name
        for section, entries in form.items():
            assert entries.keys() == golden[name][section].keys(), (name, section)
            for entry, values in entries.items():
                expected = golden[name][section][entry]
                assert _words(values) == _words(expected), (name, section, entry)
                assert _numbers(values) == pytest.approx(_numbers(expected), rel=1e-9), (name, section, entry)


def _words(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if not isinstance(value, float | int)}


def _numbers(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if isinstance(value, float | int)}
