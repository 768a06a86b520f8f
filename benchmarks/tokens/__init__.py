"""The goals of :mod:`benchmarks.bench_tokens`, grouped by topic."""
