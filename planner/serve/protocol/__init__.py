"""The gRPC side of the Open Inference Protocol, as its project publishes it."""
