"""Running a model: where its checkpoint is, how it is loaded, and how it answers."""
