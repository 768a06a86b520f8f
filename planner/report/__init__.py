"""Pictures of chains, profiles, plans and runs."""
