"""One folder for each family of models."""
