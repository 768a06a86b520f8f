"""Measurements of the network between agents."""
