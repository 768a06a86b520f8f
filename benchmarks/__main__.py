"""``python -m benchmarks [NAME ...]``: run the named benchmarks, or all; ``soak`` and ``serve-soak`` take long."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks
from benchmarks import soak


def main() -> None:
    """Run the benchmarks named on the command line."""
    if sys.argv[1:2] == ["soak"]:
        soak.main(sys.argv[2:])
        return
    if sys.argv[1:2] == ["serve-soak"]:
        importlib.import_module("benchmarks.serve.soak").main(sys.argv[2:])  # its libraries are an extra
        return
    modules = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    known = [name.removeprefix("bench_") for name in modules if name.startswith("bench_")]
    names = sys.argv[1:] or known
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"unknown benchmark: {', '.join(unknown)} (expected: {', '.join(known)})")
    for name in names:
        importlib.import_module(f"benchmarks.bench_{name}").run()


if __name__ == "__main__":
    main()
