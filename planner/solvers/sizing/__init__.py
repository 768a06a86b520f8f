"""Sizing: the cheapest devices of a catalogue with which a scenario keeps all of its limits."""
