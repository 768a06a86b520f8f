"""Plan, simulate and run priority-aware model-distributed inference at the edge."""
