"""Routes through the layered graph: arcs, shortest paths, pricing, greedy construction and best response."""
