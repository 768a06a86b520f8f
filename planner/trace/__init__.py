"""Records of what happened to each sample, metrics over them, and their files."""
