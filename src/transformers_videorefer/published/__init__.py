"""From the layouts of published checkpoints to ours."""
