"""The trained models that come with the project, and what made them."""
