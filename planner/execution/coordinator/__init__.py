"""The coordinator: deploys a run to agents, follows it, and collects what it gave."""
