"""Costs of one chain's blocks on one device class: measured, estimated, stored."""
