"""VideoRefer for transformers: ask a video language model about any region of a video."""
