"""One route per source by mixed-integer programming, and the elastic filter for infeasible problems."""
