"""The virtual-time driver of the worker: event heap, compute and network models."""
