"""Simulation of runs in virtual time: event heap, device and network models, and the driver of the workers."""
