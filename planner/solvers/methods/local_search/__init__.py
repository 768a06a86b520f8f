"""One route per source by local search, with a Lagrangian lower bound."""
