"""Routes and shares of every source; delays of a fixed plan; verification; files."""
