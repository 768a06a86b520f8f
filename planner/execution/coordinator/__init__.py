"""The coordinator: deploys a run to agents, supervises it, and collects its results."""
