"""Costs of a chain's blocks on a device class: measured, estimated and stored."""
