"""Values, gaps, times and memory of solvers on public classes of instances, kept by release; see ``__main__``."""
