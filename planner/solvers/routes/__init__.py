"""Routes through the layered graph: arcs, shortest paths, prices, and quick constructions."""
