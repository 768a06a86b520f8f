"""A user's own samples through a plan: in, and their results out."""
