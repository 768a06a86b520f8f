"""The protocol of the workers, explored exhaustively on small runs; ``python -m tests.protocol`` prints the numbers."""
