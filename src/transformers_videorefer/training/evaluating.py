"""Evaluation in training: rows that cannot be measured are recorded and kept out of the loss."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from .guards import REPORT, RowCounts


logger = logging.getLogger(__name__)


class EvaluationMixin:
    """What [`VideoReferSFTTrainer`] adds to the evaluation of the library's trainer.

    The library repeats the loss of a batch once per row that the batch should have had. Where rows are left out, the
    mean here is over the rows that are there, and `eval_skipped_rows` counts the others.
    """

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the loader of evaluation rows, whose frames are the same in every epoch.

        Args:
            eval_dataset (`str` or `Dataset`, *optional*): The rows, as in `Trainer`.

        Returns:
            `DataLoader`: The loader.
        """
        training_collator = self.data_collator
        if self._eval_collator is not None:
            self.data_collator = self._eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Measure a batch, see `SFTTrainer.prediction_step`, and note what became of its rows.

        Args:
            model (`nn.Module`): The wrapped model.
            inputs (`Mapping[str, Any]`): The batch.
            prediction_loss_only (`bool`): Whether logits are not wanted.
            ignore_keys (`list[str]`, *optional*): Outputs to leave out.

        Returns:
            `tuple`: Loss, logits and labels.
        """
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys=ignore_keys)
        if REPORT in inputs:
            report = inputs[REPORT]
            self._eval_rows += self.eval_guard.record(report, self.state.global_step)
            if loss is not None:
                self._eval_loss += loss.item() * len(report.kept)
        return loss, logits, labels

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """Measure all batches, see `Trainer.evaluation_loop`.

        Args:
            dataloader (`DataLoader`): The batches.
            description (`str`): What the log calls it.
            prediction_loss_only (`bool`, *optional*): Whether only the loss is wanted.
            ignore_keys (`list[str]`, *optional*): Outputs to leave out.
            metric_key_prefix (`str`, *optional*, defaults to `"eval"`): How the names of the metrics begin.

        Returns:
            `EvalLoopOutput`: Predictions and metrics.

        Raises:
            ValueError: If not one row could be measured; it names the last one.
        """
        guard, guard.counts = self.eval_guard, RowCounts()
        self._eval_rows, self._eval_loss = torch.zeros(3, dtype=torch.long), 0.0
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix=metric_key_prefix
        )
        guard.add(*self._sum_over_processes(self._eval_rows).tolist())
        num_left_out = guard.counts.unusable + guard.counts.too_long
        if num_left_out:
            guard.check()
            logger.warning(
                "%d of %d rows are left out of the evaluation; %s names them.",
                num_left_out,
                guard.counts.seen,
                guard.place,
            )
            total = self._sum_over_processes(torch.tensor(self._eval_loss)).item()
            output.metrics[f"{metric_key_prefix}_loss"] = total / (guard.counts.seen - num_left_out)
            output.metrics[f"{metric_key_prefix}_skipped_rows"] = num_left_out
        return output

    def _sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(values.to(self.args.device), reduction="sum")
