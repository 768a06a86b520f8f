"""The sans-IO worker: events in, effects out."""
