"""An instance in, a plan with its proven gap out; one file a method."""
