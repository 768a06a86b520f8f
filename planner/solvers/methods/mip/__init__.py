"""One route a source by mixed-integer programming."""
