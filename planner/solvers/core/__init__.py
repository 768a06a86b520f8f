"""What all methods share: the problem as arrays, the state of a search, the explanation of infeasibility."""
