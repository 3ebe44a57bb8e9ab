"""Arguments of the trainer: everything TRL's `SFTConfig` has, with the defaults of VideoRefer's stages."""

import os
from dataclasses import dataclass, field
from typing import Any

from transformers_videorefer.regions.values import parse_region_frames

from .stages import check_modules, find_stage


try:
    from trl import SFTConfig
except ImportError as error:
    raise ImportError(
        "Training needs the library `trl`. Install it with `pip install transformers-videorefer[train]`."
    ) from error

# Orders of rows that keep questions about one video together.
_GROUPED_STRATEGIES = ("random", "group_by_length")
_RATES = (
    "learning_rate",
    "connector_learning_rate",
    "region_encoder_learning_rate",
    "language_model_learning_rate",
    "matrix_learning_rate",
)
_COUNTS = ("num_frames", "num_region_tokens", "max_length", "max_visual_tokens_per_batch")


@dataclass
class VideoReferSFTConfig(SFTConfig):
    """Arguments of [`VideoReferSFTTrainer`].

    A stage brings the parts that learn, learning rate, global batch size and region mode of the paper; whatever is
    given beside it wins. Without a stage those of stage 3 count, except for the batch size.

    Args:
        stage (`str`, *optional*): `"1"`, `"2"`, `"2.5"` or `"3"`.
        trainable_modules (`list[str]`, *optional*): The parts that learn, of `connector`, `region_encoder`,
            `language_model` and `lm_head`; those of the stage by default. Not used with LoRA.
        learning_rate (`float`, *optional*): Peak learning rate; that of the stage by default.
        connector_learning_rate (`float`, *optional*): That of the connector; `learning_rate` by default.
        region_encoder_learning_rate (`float`, *optional*): That of the region encoder; `learning_rate` by default.
        language_model_learning_rate (`float`, *optional*): That of the language model and its head (or of the LoRA
            weights on it); `learning_rate` by default.
        matrix_optimizer (`str`, *optional*): `"muon"` lets Muon update the weight matrices, and `optim` all the rest
            (embeddings, head, convolutions, biases and norms).
        matrix_learning_rate (`float`, *optional*, defaults to `0.02`): Learning rate of those matrices.
        lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`): Schedule of the learning rate.
        warmup_steps (`float`, *optional*, defaults to `0.03`): Steps of warm-up, or their share if below 1.
        num_train_epochs (`float`, *optional*, defaults to `1.0`): Passes over the data.
        global_batch_size (`int`, *optional*): Rows per optimizer step over all processes, reached by accumulating
            gradients. That of the stage by default, unless `gradient_accumulation_steps` is given.
        gradient_accumulation_steps (`int`, *optional*): Batches per optimizer step, in place of `global_batch_size`.
        multi_frame_ratio (`float`, *optional*): Share of the video rows that show their regions on all annotated
            frames, in [0, 1]; the others show one random annotated frame. That of the stage by default.
        questions_per_video (`int`, *optional*): Rows about one video that share a batch, where a video has so many; the
            video is then decoded, sent and encoded once for all of them. Must divide `per_device_train_batch_size`. By
            default rows come in any order. With `train_sampling_strategy="group_by_length"` the texts of a batch are of
            similar length, too.
        region_statistics_rows (`int`, *optional*, defaults to `0`): Rows whose region features are measured before the
            first step; mean and deviation are folded into the first layer of the region encoder. For one that starts
            at random.
        data_root (`str`, *optional*): Folder that paths in rows are relative to, for rows without a `data_root`.
        num_frames (`int`, *optional*): Scene frames per video; the processor's by default.
        num_region_frames (`int` or `str`, *optional*): Most frames used of a region, `"all"` for all; the processor's by
            default.
        num_region_tokens (`int`, *optional*): Most tokens of a region; the processor's by default.
        empty_masks (`str`, *optional*, defaults to `"drop"`): What to do with empty masks: `"error"`, `"drop"` or
            `"keep"` (the published behaviour).
        max_length (`int`, *optional*): Most tokens of a row, scene and object tokens included. Longer rows are left
            out and counted, never cut. No bound by default.
        max_visual_tokens_per_batch (`int`, *optional*): Most patches that the vision tower encodes at once in one
            process (a frame of 384 pixels has 729). Larger batches pass in several parts, with the same result; single
            rows above it are left out and counted. No bound by default.
        max_bad_row_share (`float`, *optional*, defaults to `0.01`): Share of rows that may be unusable before training
            stops, in [0, 1].
        save_components_only (`bool`, *optional*): Whether checkpoints hold only the connector or region encoder. By
            default they do if nothing else learns. The final save is always whole.
        gradient_checkpointing (`bool`, *optional*): Older name of `activation_checkpointing`, which is on by default.
        hub_private_repo (`bool`, *optional*, defaults to `True`): Whether a repository that is made is private.

    Raises:
        ValueError: If a stage or module is unknown, a share, rate or count is out of range, the global batch size cannot
            be reached, `questions_per_video` does not fit, or `completion_only_loss` is given.
    """

    stage: str | None = field(default=None, metadata={"help": "Training stage: 1, 2, 2.5 or 3."})
    trainable_modules: list[str] | None = field(default=None, metadata={"help": "Parts that learn."})
    learning_rate: float | None = field(default=None, metadata={"help": "Peak learning rate."})
    connector_learning_rate: float | None = field(default=None, metadata={"help": "That of the connector."})
    region_encoder_learning_rate: float | None = field(default=None, metadata={"help": "That of the region encoder."})
    language_model_learning_rate: float | None = field(default=None, metadata={"help": "That of the language model."})
    matrix_optimizer: str | None = field(default=None, metadata={"help": "`muon`, for weight matrices."})
    matrix_learning_rate: float = field(default=0.02, metadata={"help": "Learning rate of `matrix_optimizer`."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Steps of warm-up, or their share if below 1."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the data."})
    global_batch_size: int | None = field(default=None, metadata={"help": "Rows per optimizer step, in all."})
    gradient_accumulation_steps: int | None = field(default=None, metadata={"help": "Batches per optimizer step."})
    multi_frame_ratio: float | None = field(default=None, metadata={"help": "Share of multi-frame video rows."})
    questions_per_video: int | None = field(default=None, metadata={"help": "Rows about one video in a batch."})
    region_statistics_rows: int = field(default=0, metadata={"help": "Rows to scale a new region encoder by."})
    data_root: str | None = field(default=None, metadata={"help": "Folder that paths in rows are relative to."})
    num_frames: int | None = field(default=None, metadata={"help": "Scene frames per video."})
    num_region_frames: int | str | None = field(
        default=None, metadata={"help": 'Most frames used of a region, or "all".'}
    )
    num_region_tokens: int | None = field(default=None, metadata={"help": "Most tokens of a region."})
    empty_masks: str = field(default="drop", metadata={"help": "`error`, `drop` or `keep` empty masks."})
    max_length: int | None = field(default=None, metadata={"help": "Most tokens of a row; longer ones are left out."})
    max_visual_tokens_per_batch: int | None = field(default=None, metadata={"help": "Most patches encoded at once."})
    max_bad_row_share: float = field(default=0.01, metadata={"help": "Share of unusable rows that stops training."})
    save_components_only: bool | None = field(default=None, metadata={"help": "Save only the parts that learn."})
    gradient_checkpointing: bool | None = field(
        default=None, metadata={"help": "Older name of `activation_checkpointing`."}
    )
    hub_private_repo: bool | None = field(default=True, metadata={"help": "Whether a new repository is private."})

    def __post_init__(self) -> None:
        """Fill in what the stage says, and check it."""
        preset = find_stage(self.stage)
        if self.stage is not None:
            self.stage = str(self.stage).removesuffix(".0")  # YAML reads 3 and 2.5 as numbers
        if self.trainable_modules is None:
            self.trainable_modules = list(preset.modules)
        check_modules(self.trainable_modules)
        if self.learning_rate is None:
            self.learning_rate = preset.learning_rate
        if self.multi_frame_ratio is None:
            self.multi_frame_ratio = preset.multi_frame_ratio
        for name in ("multi_frame_ratio", "max_bad_row_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}. Pass a share from 0 to 1.")
        self._check_bounds()
        if self.completion_only_loss is not None:
            raise ValueError(
                "`completion_only_loss` has no meaning here: answers of the assistant are learned, and nothing else. Leave "
                "it out."
            )
        if self.questions_per_video is not None:
            self._check_questions_per_video()
        if self.matrix_optimizer not in (None, "muon"):
            raise ValueError(f"`matrix_optimizer` must be muon or absent, got {self.matrix_optimizer!r}.")
        if self.save_components_only is None:
            self.save_components_only = {"connector", "region_encoder"}.issuperset(self.trainable_modules)
        if self.activation_checkpointing is None:  # on unless told otherwise, as in TRL
            self.activation_checkpointing = self.gradient_checkpointing is not False
        self._set_accumulation(preset.global_batch_size if self.stage is not None else None)
        # Rows become tensors in the collator, and their columns are no inputs of the model.
        self.dataset_kwargs = {**_as_dict(self.dataset_kwargs), "skip_prepare_dataset": True}
        self.remove_unused_columns = False
        super().__post_init__()

    def _check_bounds(self) -> None:
        for name in _RATES:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"`{name}` is {value}. Pass 0 or more.")
        if isinstance(self.num_region_frames, str) and self.num_region_frames.isdecimal():
            self.num_region_frames = int(self.num_region_frames)  # from the command line
        parse_region_frames(self.num_region_frames)
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}. Pass at least 1, or leave it out.")
        if self.region_statistics_rows < 0:
            raise ValueError(f"`region_statistics_rows` is {self.region_statistics_rows}. Pass 0 for none, or more.")

    def _check_questions_per_video(self) -> None:
        if self.questions_per_video < 1 or self.per_device_train_batch_size % self.questions_per_video:
            raise ValueError(
                f"`questions_per_video` is {self.questions_per_video}, which does not divide "
                f"`per_device_train_batch_size` of {self.per_device_train_batch_size}. Change one of them."
            )
        if self.train_sampling_strategy not in _GROUPED_STRATEGIES:
            raise ValueError(
                f"`questions_per_video` and `train_sampling_strategy` {self.train_sampling_strategy!r} both order the rows. "
                f"Leave one out, or choose {' or '.join(_GROUPED_STRATEGIES)}."
            )

    def _set_accumulation(self, preset: int | None) -> None:
        """Work out how many batches make an optimizer step."""
        if self.gradient_accumulation_steps is not None:
            if self.global_batch_size is not None:
                rows = self._rows_at_once() * self.gradient_accumulation_steps
                if rows != self.global_batch_size:
                    raise ValueError(
                        f"`gradient_accumulation_steps` of {self.gradient_accumulation_steps} gives {rows} rows per step, "
                        f"but `global_batch_size` is {self.global_batch_size}. Leave one of them out."
                    )
            return
        if self.global_batch_size is None:
            self.global_batch_size = preset
        if self.global_batch_size is None:
            self.gradient_accumulation_steps = 1
            return
        steps, rest = divmod(self.global_batch_size, self._rows_at_once())
        if rest or not steps:
            raise ValueError(
                f"`global_batch_size` is {self.global_batch_size}, which {self._rows_at_once()} rows at once "
                f"(`per_device_train_batch_size` {self.per_device_train_batch_size} x {_num_processes()} processes) do "
                "not divide. Change one of them."
            )
        self.gradient_accumulation_steps = steps

    def _rows_at_once(self) -> int:
        return self.per_device_train_batch_size * _num_processes()


def _num_processes() -> int:
    # What every launcher sets. The library's own count would initialise the process group, before its backend is known.
    return int(os.environ.get("WORLD_SIZE", "1"))


def _as_dict(value: dict[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(value, str):
        raise ValueError("`dataset_kwargs` must be a mapping. Leave it out: rows are prepared by the collator.")
    return dict(value or {})
