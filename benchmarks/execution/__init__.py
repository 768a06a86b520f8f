"""The goals of :mod:`benchmarks.bench_execute`, grouped by topic."""
