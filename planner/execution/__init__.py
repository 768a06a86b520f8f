"""The real-time driver of the worker: transport, agent, coordinator."""
