"""Optional compilation of the simulator, the workers and the policies, by ``PLANNER_COMPILE=1 pip install .``.

The modules of :data:`COMPILED` become C extensions by mypyc, beside their sources, which Python then prefers. Nothing
else differs: the same classes with the same results. Without the variable the wheel is pure Python.

mypyc is given copies in which classes are spelt out for it, see :func:`for_mypyc`.
"""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "PLANNER_COMPILE"
GROUP = "planner"

COMPILED = ("planner/policy/*.py", "planner/simulation/*.py", "planner/trace/*.py", "planner/worker/*.py")
"""Modules that are compiled, except those of :data:`INTERPRETED`."""

INTERPRETED = frozenset(
    (
        "planner/policy/candidate_routes.py",  # has tuples of which mypyc takes too narrow a view
        "planner/policy/registry.py",  # reads what other packages register
        "planner/simulation/replications.py",  # starts processes
        "planner/simulation/summary.py",
        "planner/simulation/tails.py",
        "planner/trace/chrome.py",
        "planner/trace/store.py",
    )
)

PLAIN = frozenset(("planner/policy/types.py", "planner/trace/records.py", "planner/worker/events.py"))
"""Modules whose dataclasses without made-up defaults have plain data, which the garbage collector need not look at."""

_SETUP = """
from mypyc.build import mypycify
from setuptools import setup

setup(ext_modules=mypycify({modules!r}, group_name={group!r}, opt_level="1"), packages=[])
"""

_MYPY = """
[mypy]
plugins = pydantic.mypy
follow_imports = silent
ignore_missing_imports = True
"""

_HEAD = """
from typing import TYPE_CHECKING as _TYPE_CHECKING, Any as _Any
if _TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as _mypyc_attr

def _describe(made: _Any, types: dict[str, str]) -> None:
    made.__annotations__ = types

def _describe_fields(made: _Any, types: dict[str, str]) -> None:
    _describe(made, types)
    made.__slots__ = tuple(types)
    for name, field in made.__dataclass_fields__.items():
        field.type = types[name]
"""


def for_mypyc(source: str, *, plain: bool = False) -> str:
    """Return a module as mypyc is to compile it.

    - Every class may be subclassed, copied and pickled, as interpreted ones.
    - A dataclass has no ``slots=True``, which would add a second, interpreted class: what is compiled has slots anyway.
      It is not frozen, since such a class can be neither copied nor pickled; it keeps its hash.
    - A dataclass has its constructor spelt out, which mypyc compiles, in place of the one made when it is imported.
    - The garbage collector does not look at one of plain data.
    - The types of its fields are told again, since pydantic reads them and mypyc keeps none.
    """
    lines = source.splitlines()
    edits: list[tuple[int, int, list[str]]] = []
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            edits += _class_edits(node, plain=plain)
    first = next(node for node in tree.body if not _is_docstring_or_future(node))
    edits.append((first.lineno - 1, first.lineno - 1, _HEAD.splitlines()))
    for start, end, text in sorted(edits, key=lambda edit: edit[:2], reverse=True):
        lines[start:end] = text
    return "\n".join(lines) + "\n"


def _is_docstring_or_future(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _class_edits(node: ast.ClassDef, *, plain: bool) -> Iterator[tuple[int, int, list[str]]]:
    """Yield replacements of lines from one up to another."""
    bases = {ast.unparse(base) for base in node.bases}
    if "NamedTuple" in bases:
        yield node.end_lineno or 0, node.end_lineno or 0, ["", f"_describe({node.name}, {_types(_fields(node))})"]
    if bases & {"NamedTuple", "Protocol", "Exception"}:
        return
    if not _has(node, "__setattr__"):  # which mypyc takes in final classes only
        above = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        acyclic = ", acyclic=True" if plain and "field(" not in ast.unparse(node) else ""
        yield above, above, [f"@_mypyc_attr(serializable=True, allow_interpreted_subclasses=True{acyclic})"]
    for decorator in node.decorator_list:
        if ast.unparse(decorator).partition("(")[0] == "dataclass":
            options = _options(decorator)
            fields = list(_fields(node))
            body: list[str] = []
            if all(value is None or not value.startswith("field(") for _, _, value in fields):
                options["init"] = "False"
                body = ["", f"    def __init__(self, {', '.join(map(_parameter, fields))}) -> None:"]
                body += [f"        self.{name} = {name}" for name, _, _ in fields]
                body += ["        self.__post_init__()"] if _has(node, "__post_init__") else []
            made = ", ".join(f"{key}={value}" for key, value in options.items())
            yield decorator.lineno - 1, decorator.end_lineno or 0, [f"@dataclass({made})"]
            yield (
                node.end_lineno or 0,
                node.end_lineno or 0,
                [*body, "", f"_describe_fields({node.name}, {_types(fields)})"],
            )


def _options(decorator: ast.expr) -> dict[str, str]:
    """Return the options of a dataclass that mypyc keeps."""
    given = decorator.keywords if isinstance(decorator, ast.Call) else []
    options = {keyword.arg or "": ast.unparse(keyword.value) for keyword in given}
    options.pop("slots", None)
    if options.pop("frozen", None):
        options["unsafe_hash"] = "True"
    return options


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str | None]]:
    """Yield name, type and default of each field of a dataclass."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            kind = ast.unparse(item.annotation)
            if not kind.startswith("ClassVar"):
                yield item.target.id, kind, ast.unparse(item.value) if item.value is not None else None


def _types(fields: Iterable[tuple[str, str, str | None]]) -> dict[str, str]:
    return {name: kind for name, kind, _ in fields}


def _parameter(field: tuple[str, str, str | None]) -> str:
    name, kind, default = field
    return f"{name}: {kind}" if default is None else f"{name}: {kind} = {default}"


def _has(node: ast.ClassDef, method: str) -> bool:
    return any(isinstance(item, ast.FunctionDef) and item.name == method for item in node.body)


def compiled_modules(root: Path) -> list[str]:
    """Return the paths of the modules that are compiled, relative to the root."""
    found = (path.relative_to(root).as_posix() for pattern in COMPILED for path in sorted(root.glob(pattern)))
    return [path for path in found if path not in INTERPRETED and not path.endswith("__init__.py")]


def compile_into(root: Path, folder: Path) -> list[str]:
    """Compile the modules of a source tree into ``folder``; return the paths of the extensions there.

    Raises
    ------
    SystemExit
        There is no compiler, or a module is not what mypyc takes.
    """
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise SystemExit(f"{VARIABLE} is set, and there is no C compiler {compiler}: install one, or unset {VARIABLE}")
    shutil.copytree(root / "planner", folder / "planner", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    modules = compiled_modules(root)
    for module in modules:
        source = (root / module).read_text()
        refuse_lazy_sums(ast.parse(source), module)
        (folder / module).write_text(for_mypyc(source, plain=module in PLAIN))
    (folder / "mypy.ini").write_text(_MYPY)
    (folder / "setup.py").write_text(_SETUP.format(modules=modules, group=GROUP))
    flags = f"{os.environ.get('CFLAGS', '')} -ffp-contract=off"  # no fused operations, which round otherwise
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder, env={**os.environ, "CFLAGS": flags}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the modules of planner cannot be compiled:\n{done.stdout}{done.stderr}")
    return [path.relative_to(folder).as_posix() for path in sorted(folder.glob("planner*/**/*.so"))] + [
        path.name for path in sorted(folder.glob("*.so"))
    ]


def refuse_lazy_sums(tree: ast.Module, module: str) -> None:
    """Refuse sums over generators: Python adds floats with compensation since 3.12, and what mypyc makes does not."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "sum"
            and isinstance(node.args[0], ast.GeneratorExp)
        ):
            raise SystemExit(f"{module}:{node.lineno}: sums in compiled modules are of lists, not of generators")


class CompileHook(BuildHookInterface[Any]):
    """Adds the extensions to a wheel, if :data:`VARIABLE` asks for them."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what compiling needs: mypyc, and the libraries whose types it reads."""
        return ["mypy>=1.15", "setuptools>=77", *self.metadata.core.dependencies] if self._asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless the package is installed in place."""
        if not self._asked() or version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="planner-compiled-")
        folder = Path(self._folder.name)
        for path in compile_into(Path(self.root), folder):
            build_data["force_include"][str(folder / path)] = path
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was compiled, which the wheel has."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    def _asked(self) -> bool:
        return self.target_name == "wheel" and os.environ.get(VARIABLE, "") not in {"", "0"}
