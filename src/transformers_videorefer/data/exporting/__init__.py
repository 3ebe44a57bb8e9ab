"""From published files to a folder that `load_dataset` reads: builders, shards, publishing, uploading."""
