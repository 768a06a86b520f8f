"""Pages in one self-contained HTML file: the report of runs, and the live view of a service."""
