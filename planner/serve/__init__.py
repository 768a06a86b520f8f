"""A standing service over a session: the Open Inference Protocol by HTTP and gRPC, metrics, and a view of its state."""
