"""What happened to each sample: records, metrics, files."""
