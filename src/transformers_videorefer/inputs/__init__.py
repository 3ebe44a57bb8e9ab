"""From text, media and regions to the batch of tensors that a model takes."""
