"""Sources, workers and networks: read from a file, checked, joined with their profiles."""
