"""One route a source by local search, with a Lagrangian bound."""
