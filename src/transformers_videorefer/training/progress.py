"""What happens at the borders of epochs and steps."""

from typing import Any

from transformers import TrainerCallback


class ProgressCallback(TrainerCallback):
    """Tells collator and sampler which epoch begins, judges the rows of each epoch, and notes learning rates as they are used.

    Args:
        trainer ([`VideoReferSFTTrainer`]): The trainer.
    """

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self._epoch = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up the epoch of a resumed run."""
        self._epoch = int(state.epoch or 0)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the collator, and the sampler of ours, which epoch begins."""
        # The loader tells a sampler only where nothing is wrapped around it, as resuming and several processes do.
        for listener in (self._trainer.data_collator, self._trainer.sampler):
            if hasattr(listener, "set_epoch"):
                listener.set_epoch(self._epoch)
        self._epoch += 1

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the learning rates."""
        self._trainer.note_learning_rates()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Judge the rows of the epoch."""
        self._trainer.guard.check()
