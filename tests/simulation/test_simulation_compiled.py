"""The compiled build does what the interpreted one does, to the last digit."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from shutil import which
from types import ModuleType

import pytest

from tests.simulation.fingerprints import draw

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    path = ROOT / "hatch_build.py"
    if not path.is_file():
        pytest.skip("these are the tests of an installed wheel")
    spec = importlib.util.spec_from_file_location("hatch_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_mypyc_is_given_still_parses_and_has_the_same_classes(hook: ModuleType) -> None:
    for module in hook.compiled_modules(ROOT):
        source = (ROOT / module).read_text()
        given = hook.for_mypyc(source)
        assert given.count("\nclass ") == source.count("\nclass ")
        compile(given, module, "exec")


def test_a_dataclass_is_spelt_out_for_mypyc(hook: ModuleType) -> None:
    source = (
        "from dataclasses import dataclass\n\n"
        "@dataclass(frozen=True, slots=True)\nclass A:\n    x: int\n    y: str = 'b'\n\n    z = 3\n"
    )
    given = hook.for_mypyc(source, plain=True)
    assert "@dataclass(unsafe_hash=True, init=False)" in given
    assert "    def __init__(self, x: int, y: str = 'b') -> None:\n        self.x = x\n        self.y = y\n" in given
    assert "_describe_fields(A, {'x': 'int', 'y': 'str'})" in given


def test_a_sum_over_a_generator_is_refused(hook: ModuleType) -> None:
    hook.refuse_lazy_sums(ast.parse("sum([x for x in y], 0.0)"), "m.py")
    with pytest.raises(SystemExit, match=r"m\.py:1"):
        hook.refuse_lazy_sums(ast.parse("sum(x for x in y)"), "m.py")


def test_a_missing_compiler_is_named(hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(SystemExit, match="no C compiler no-such-compiler"):
        hook.compile_into(ROOT, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_compiled_and_interpreted_runs_have_the_same_records(hook: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("mypyc")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if which(compiler) is None:
        pytest.skip(f"there is no C compiler {compiler}")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    done = subprocess.run(
        build, cwd=ROOT, env={**os.environ, hook.VARIABLE: "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    assert "none-any" not in wheel.name
    with zipfile.ZipFile(wheel) as opened:
        assert {f"{module}.py" for module in _extensions(opened)} >= set(hook.compiled_modules(ROOT))
        opened.extractall(tmp_path / "site")
    cases = tmp_path / "cases"
    draw(cases)

    def fingerprints(package: Path) -> list[str]:
        """Run the package of a folder, with the tests of this checkout."""
        path = os.pathsep.join(map(str, (package, ROOT)))
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation.fingerprints", str(cases)],
            cwd=package, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    compiled, interpreted = fingerprints(tmp_path / "site"), fingerprints(ROOT)
    assert (compiled.pop(), interpreted.pop()) == ("worker: .so", "worker: .py")
    assert compiled == interpreted


def _extensions(wheel: zipfile.ZipFile) -> set[str]:
    """Return the names of the compiled modules in a wheel, without what says for which Python they are."""
    return {name.partition(".")[0] for name in wheel.namelist() if name.endswith(".so")}
