"""Messages between the members of a run, and their transport."""
