"""Sessions, which run a user's own samples through a plan and return the results."""
