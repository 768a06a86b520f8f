"""The goals of :mod:`benchmarks.bench_execute`, a few in each file."""
