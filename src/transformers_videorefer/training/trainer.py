"""The trainer: TRL's `SFTTrainer` with VideoRefer's stages, batches and guards."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin

from .auxiliary import AuxiliaryLoss, AuxiliaryLosses, TargetCollator, count_told
from .batches import (
    MediaSizes,
    add_missing_media,
    describe_batch,
    empty_batch,
    media_per_row,
    name_numbers,
    select_rows,
    split_by_load,
)
from .config import VideoReferSFTConfig
from .defaults import load_model, make_collator
from .evaluating import EvaluationMixin
from .guards import REPORT, RowReport, make_guards
from .optimizers import build_optimizer, learning_rates_of, parameter_groups
from .progress import ProgressCallback
from .sampling import check_order, is_ordered, sample_same_videos
from .saving import SavingMixin
from .scenes import IndexingCollator, encode_shared_media
from .sharding import add_made_up_row, gather_head, kinds_in_use
from .stages import freeze_all_but, hold_in_float32, module_of_parameter
from .starting import first_rows, standardize_regions


try:
    from transformers.trainer_optimizer import is_optimizer_factory
    from trl import SFTTrainer
except ImportError as error:
    raise ImportError(
        "Training needs the library `trl`. Install it with `pip install transformers-videorefer[train]`."
    ) from error

logger = logging.getLogger(__name__)


class VideoReferSFTTrainer(SavingMixin, EvaluationMixin, SFTTrainer):
    """Fine-tunes VideoRefer on rows of any of our sets, and of sets with `messages` and `images` as TRL has them.

    Args:
        model (`str` or [`VideoReferForConditionalGeneration`]): The model, or folder or Hub id to load it from; also
            one with adapters (`PeftModel`).
        args ([`VideoReferSFTConfig`], *optional*): Settings.
        data_collator (`Callable`, *optional*): Makes batches of rows; a [`VideoReferDataCollator`] with the settings of
            `args` by default.
        train_dataset (`Dataset` or `IterableDataset`, *optional*): Rows to learn from.
        eval_dataset (`Dataset`, `IterableDataset` or `dict`, *optional*): Rows to measure the loss on.
        processing_class ([`VideoReferProcessor`], *optional*): The processor; that of the model's folder by default.
        peft_config (`PeftConfig`, *optional*): Train adapters. Where it leaves them open, `target_modules` are the
            projections of the language model and `modules_to_save` connector and region encoder.
        quantization_config (`BitsAndBytesConfig`, *optional*): Load `model` with quantized weights.
        dataset_names (`Sequence[str]`, *optional*): What the model card calls the data.
        auxiliary_losses (`Sequence[AuxiliaryLoss]`, *optional*): Losses beside the next token, in training only.
        kwargs: Further arguments of `SFTTrainer`.

    Raises:
        ValueError: If adapters would lie outside of the language model, nothing would learn, one process would use
            several GPUs, or streamed rows should be sorted.
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: VideoReferSFTConfig | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: ProcessorMixin | None = None,
        *,
        peft_config: Any = None,
        quantization_config: Any = None,
        dataset_names: Sequence[str] = (),
        auxiliary_losses: Sequence[AuxiliaryLoss] = (),
        **kwargs: Any,
    ):
        args = VideoReferSFTConfig(output_dir="videorefer-sft") if args is None else args
        _check_devices(args)
        self.dataset_names = list(dataset_names)
        if isinstance(model, str):
            model = load_model(model, args, quantization_config)
        self._base_name = model.config.name_or_path
        if processing_class is None:
            processing_class = AutoProcessor.from_pretrained(self._base_name)
        if train_dataset is not None:
            check_order(train_dataset, args)
        self._is_peft = peft_config is not None or hasattr(model, "peft_config")
        self._saves_components = bool(args.save_components_only) and not self._is_peft
        if peft_config is not None:
            from .lora import complete_lora_config

            complete_lora_config(peft_config)
        elif not self._is_peft:
            freeze_all_but(model, args.trainable_modules)
        self._sizes = MediaSizes.from_processor(processing_class)
        self._eval_collator = None
        self._learning_rates: dict[str, float] = {}
        self._num_told: dict[str, int] = {}
        self.sampler = None
        if data_collator is None:
            data_collator = make_collator(processing_class, args, self._sizes)
            self._eval_collator = make_collator(processing_class, args, self._sizes)  # stays at its first epoch
        else:
            data_collator = IndexingCollator(data_collator)
        if auxiliary_losses:
            data_collator = TargetCollator(data_collator, auxiliary_losses)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            peft_config=peft_config,
            **kwargs,
        )
        if peft_config is not None:
            from .lora import check_adapters

            check_adapters(self.model)
        self._weights_dtype = self._learn_in_float32()
        self._auxiliary = AuxiliaryLosses(self._inner, auxiliary_losses) if auxiliary_losses else None
        self._add_hooks()
        learning = {module_of_parameter(name) for name, one in self.model.named_parameters() if one.requires_grad}
        self._learning_modules = sorted(learning - {None})
        self.guard, self.eval_guard = make_guards(args, self.train_dataset)
        self.add_callback(ProgressCallback(self))

    def _add_hooks(self) -> None:
        self._inner.model.register_forward_pre_hook(encode_shared_media, with_kwargs=True)
        if self.is_fsdp_enabled:
            self._inner.model.register_forward_hook(lambda *_: gather_head(self._inner))

    @property
    def _unwrapped(self) -> PreTrainedModel:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    @property
    def _inner(self) -> PreTrainedModel:
        """The model itself, without adapters."""
        return self._unwrapped.get_base_model() if self._is_peft else self._unwrapped

    def _learn_in_float32(self) -> torch.dtype | None:
        """Hold what learns in float32; sharded training keeps float32 copies of its own, quantized models stay."""
        is_sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        if not (self.args.bf16 or self.args.fp16) or is_sharded or getattr(self.model, "is_quantized", False):
            return None
        dtype = hold_in_float32(self.model)
        return None if self._is_peft else dtype

    def _set_signature_columns_if_needed(self) -> None:
        # All columns of a row reach the collator.
        if self._signature_columns is None and hasattr(self.train_dataset, "column_names"):
            self._signature_columns = list(self.train_dataset.column_names or ())

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not is_ordered(self.args):
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        self.sampler = sample_same_videos(dataset, self.args)
        return self.sampler

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer, with a group and a learning rate for each part of the model.

        Args:
            model (`nn.Module`, *optional*): The wrapped model.

        Returns:
            `Optimizer`: The optimizer.

        Raises:
            ValueError: If the chosen optimizer makes its groups itself, or sharded training meets
                `matrix_optimizer`.
        """
        if self.optimizer is not None or self.optimizer_cls_and_kwargs is not None:
            return super().create_optimizer(model)
        args = self.args
        model = self.model if model is None else model
        optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(args, model)
        if is_optimizer_factory(optimizer_class) or kwargs.keys() & {"params", "model", "optimizer_dict"}:
            raise ValueError(
                f"`optim` {args.optim} sorts the parameters itself and knows no parts of a model. Choose another, or "
                "pass an optimizer of your own as `optimizers`."
            )
        if args.matrix_optimizer is not None and (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            raise ValueError(
                "`matrix_optimizer` needs whole matrices, which sharded training does not have. Leave it out, or train "
                "without sharding."
            )
        groups = parameter_groups(
            model,
            learning_rates=learning_rates_of(args),
            weight_decay=args.weight_decay,
            decay_names=self.get_decay_parameter_names(model),
            matrix_learning_rate=args.matrix_learning_rate if args.matrix_optimizer else None,
        )
        self.optimizer = build_optimizer(groups, optimizer_class, **kwargs)
        return self.optimizer

    def prepare_start(self) -> None:
        """Scale a new region encoder to the features it will see, as `region_statistics_rows` asks, before a run."""
        if self.args.region_statistics_rows:
            rows = first_rows(self.train_dataset, self.args.region_statistics_rows)
            standardize_regions(self._inner, rows, self.data_collator, self.args.per_device_train_batch_size)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Fetch the batches of an optimizer step, see `Trainer.get_batch_samples`, and count what they hold.

        Args:
            epoch_iterator (`Iterator`): The batches.
            num_batches (`int`): How many.
            device (`torch.device`): Where to count.

        Returns:
            `tuple`: The batches and the number of supervised tokens.

        Raises:
            ValueError: If too many rows cannot be trained on; it names the last one.
        """
        samples, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts, numbers = torch.zeros(3, dtype=torch.long), torch.zeros(5, dtype=torch.long)
        for batch in samples:
            if REPORT in batch:
                counts += self.guard.record(batch[REPORT], self.state.global_step)
            if "sample_counts" in batch:
                numbers += torch.tensor(describe_batch(batch, self._sizes.num_patches))
        totals = self.accelerator.gather(torch.cat([counts, numbers]).to(device).unsqueeze(0)).sum(dim=0).tolist()
        self.guard.add(*totals[:3])
        for name, value in name_numbers(totals[3:]).items():
            self._metrics["train"][name].append(value)
        return samples, num_items

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Make a training step; a batch beyond `max_visual_tokens_per_batch` passes in several parts.

        Args:
            model (`nn.Module`): The wrapped model.
            inputs (`dict[str, Any]`): The batch.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*): Supervised tokens of the whole optimizer step.

        Returns:
            `torch.Tensor`: The loss, detached.
        """
        parts = self._split(inputs)
        state = self.accelerator.gradient_state
        is_last_batch = state.sync_gradients
        self._num_told = count_told(inputs)
        losses = []
        for part in parts[:-1]:
            # Gradients are exchanged, and DeepSpeed makes its step, with the last part only.
            state._set_sync_gradients(False)
            with self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, num_items_in_batch))
        state._set_sync_gradients(is_last_batch)
        losses.append(super().training_step(model, parts[-1], num_items_in_batch))
        return torch.stack(losses).sum()

    def _split(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """Cut a batch into parts within the budget, equally many in every process."""
        budget = self.args.max_visual_tokens_per_batch
        if budget is None or "sample_counts" not in inputs:
            return [inputs]
        rows = split_by_load(media_per_row(inputs, self._sizes.num_patches), budget)
        num_parts = torch.tensor([len(rows)], device=self.args.device)
        num_parts = int(self.accelerator.gather(num_parts).max())
        if num_parts == 1:
            return [inputs]
        parts = []
        for positions in rows:
            part = select_rows(inputs, positions)
            if isinstance(report := inputs.get(REPORT), RowReport):
                part[REPORT] = RowReport(kept=[report.kept[position] for position in positions if report.kept])
            parts.append(part)
        return [*parts, *(empty_batch(self._sizes) for _ in range(num_parts - len(parts)))]

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Compute the loss, see `SFTTrainer.compute_loss`.

        Args:
            model (`nn.Module`): The wrapped model.
            inputs (`dict[str, Any]`): The batch.
            return_outputs (`bool`, *optional*, defaults to `False`): Whether to return the outputs, too.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*): Supervised tokens of the whole optimizer step.

        Returns:
            `torch.Tensor` or `tuple`: The loss, with the outputs if they are asked for.

        Raises:
            ValueError: If the loss is not finite; it names the rows.
        """
        inputs = dict(inputs)
        report = inputs.pop(REPORT, RowReport())
        if "sample_counts" in inputs:
            inputs = self._complete(inputs)
        result = super().compute_loss(
            model, dict(inputs), return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )
        loss = result[0] if return_outputs else result
        self._forget_empty_batch()
        if self._auxiliary is not None and self._auxiliary.values:
            loss = loss + self._auxiliary_loss(num_items_in_batch)
        if not torch.isfinite(loss).all():
            raise ValueError(
                f"The loss is {loss.item()} at step {self.state.global_step} for the rows "
                f"{', '.join(self._rows_to_blame(inputs, report))}. Look at them, lower the learning rate or raise the "
                "precision."
            )
        return (loss, result[1]) if return_outputs else loss

    def _complete(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Add what a batch lacks for all processes to go through the same parts of the model."""
        if not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            return add_missing_media(inputs, self._sizes, self._learning_modules)
        kinds = kinds_in_use(inputs, self._learning_modules).to(self.args.device)
        return add_made_up_row(inputs, self._sizes, self.accelerator.reduce(kinds, reduction="sum").tolist())

    def _forget_empty_batch(self) -> None:
        """Take the metrics of a batch of which no process has a row out of their means; the library notes zeros."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        entropy, accuracy = metrics.get("entropy"), metrics.get("mean_token_accuracy")
        if entropy and accuracy and entropy[-1] == accuracy[-1] == 0:
            for name, values in (("entropy", entropy), ("mean_token_accuracy", accuracy)):
                values.pop()
                if not values:
                    del metrics[name]

    def _auxiliary_loss(self, num_items_in_batch: Any) -> torch.Tensor:
        """Weigh the auxiliary losses of a forward pass, and note them for the log."""
        for name, value in self._auxiliary.values.items():
            self._metrics["train"][f"auxiliary/{name}"].append(self.accelerator.gather(value.detach()).mean().item())
        # They are means of a batch, which wrappers average over processes; accumulated batches count alike.
        steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        return self._auxiliary.total(self._num_told) / steps

    def _rows_to_blame(self, inputs: dict[str, Any], report: RowReport) -> list[str]:
        """Find the rows whose own loss is not finite; all rows of the batch where that cannot be told."""
        is_sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        if is_sharded or "sample_counts" not in inputs or len(report.kept) != len(inputs["input_ids"]):
            return report.kept or ["of this batch"]
        guilty = []
        for number, name in enumerate(report.kept):
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = self._unwrapped(**select_rows(inputs, [number]), fused_lm_head=True)
            if not torch.isfinite(outputs.loss):
                guilty.append(name)
        return guilty or report.kept

    def note_learning_rates(self) -> None:
        """Note the learning rate of each part before a step, for the log, where they differ."""
        groups = self._optimizer_groups()
        if len({group["initial_lr"] for group in groups}) > 1:
            self._learning_rates = {f"learning_rate/{group['name']}": group["lr"] for group in groups}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log metrics; those of training carry the learning rate of each part and the rows left out so far.

        Args:
            logs (`dict[str, float]`): The metrics.
            start_time (`float`, *optional*): When training began.
        """
        if self.model.training and "loss" in logs:
            logs["skipped_rows"] = self.guard.counts.unusable
            logs["too_long_rows"] = self.guard.counts.too_long
            logs.update(self._learning_rates)
        super().log(logs, start_time)


def _check_devices(args: VideoReferSFTConfig) -> None:
    """Refuse what the library would do with several GPUs in one process."""
    if args.n_gpu > 1:
        raise ValueError(
            f"One process sees {args.n_gpu} GPUs and would cut batches between videos and their text. Start one process "
            "per GPU with `accelerate launch`, or show it one with `CUDA_VISIBLE_DEVICES=0`."
        )
