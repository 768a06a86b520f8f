"""The decisions of a worker, one file a policy, without clock or I/O."""
