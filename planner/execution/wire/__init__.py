"""What members of a run say to each other, and how it travels."""
