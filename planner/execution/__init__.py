"""Real runs: agents on devices, and the coordinator that deploys plans to them."""
