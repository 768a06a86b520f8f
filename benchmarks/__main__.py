"""``python -m benchmarks [NAME ...]``: run the benchmarks of these names, or all."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def main() -> None:
    """Run the benchmarks that were asked for."""
    modules = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    known = [name.removeprefix("bench_") for name in modules if name.startswith("bench_")]
    asked = sys.argv[1:] or known
    unknown = [name for name in asked if name not in known]
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(known)}")
    for name in asked:
        importlib.import_module(f"benchmarks.bench_{name}").run()


if __name__ == "__main__":
    main()
