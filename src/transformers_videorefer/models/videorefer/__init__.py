"""VideoRefer: configuration, model, processors."""
