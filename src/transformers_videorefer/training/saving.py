"""Saving and resuming: complete checkpoints, components alone, adapters, and the final repository."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, rotate_checkpoints
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import PushInProgress, hf_api

from transformers_videorefer.checkpoints.components import COMPONENT_FILES, component_of_key, component_path

from .card import TrainingSummary, write_training_card
from .checkpointing import MARKER, find_checkpoints, mark_complete, unmark, what_is_missing
from .guards import RowCounts
from .stages import AUXILIARY_HEADS


logger = logging.getLogger(__name__)

# It pickles the arguments, with paths and the token of this machine.
ARGUMENTS_FILE = "training_args.bin"
HEADS_FILE = f"{AUXILIARY_HEADS}.safetensors"
# What a checkpoint holds beside the repository, for resuming.
_STATE_FILES = (
    "optimizer*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*",
    "trainer_state.json",
    "row_counts.json",
    HEADS_FILE,
    MARKER,
)
_TRUE, _FALSE = {"true", "yes", "1", "last"}, {"false", "no", "0", "none", ""}


class SavingMixin:
    """What [`VideoReferSFTTrainer`] adds to the saving and resuming of the library's trainer."""

    _is_saving_checkpoint = False

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train, see `Trainer.train`.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): A checkpoint, or `True` (also as text) for the last
                complete one in the output folder. Half-written ones, as a killed run leaves them, are passed over and
                named; without any complete one training starts from the beginning, so that the same command both
                starts and continues a run.
            kwargs: Further arguments of `Trainer.train`.

        Returns:
            `TrainOutput`: Steps, loss and metrics.

        Raises:
            ValueError: If too many rows cannot be trained on, or a loss is not finite; it names the rows.
        """
        checkpoint = self._find_checkpoint(resume_from_checkpoint)
        if checkpoint is None:
            self.guard.clear()
            self.eval_guard.clear()
            self.accelerator.wait_for_everyone()  # nobody writes before the old files are gone
            self.prepare_start()
        else:
            self.guard.counts = RowCounts.load(checkpoint)
        return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def _find_checkpoint(self, wanted: str | bool | None) -> str | None:
        if isinstance(wanted, (str, os.PathLike)) and str(wanted).lower() in _TRUE | _FALSE:
            wanted = str(wanted).lower() in _TRUE
        if wanted is None or wanted is False:
            return None
        if wanted is not True:
            problem = what_is_missing(wanted)
            if problem is not None:
                logger.warning("The checkpoint %s may be incomplete: %s.", Path(wanted).name, problem)
            return os.fspath(wanted)
        # What the first process sees counts, so that all go on from the same checkpoint.
        found, passed_over = find_checkpoints(self.args.output_dir)
        if self.is_world_process_zero():
            for name, problem in passed_over:
                logger.warning("%s is passed over: %s.", name, problem)
        found = broadcast_object_list([found])[0]
        if found is None and self.is_world_process_zero():
            logger.warning("There is no complete checkpoint to resume from. Training starts from the beginning.")
        elif found is not None:
            logger.info("Resuming from %s.", Path(found).name)
        return found

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        run_folder = self._get_output_dir(trial=trial)
        folder = Path(run_folder, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.args.should_save and folder.exists():  # left half-written by a run that was killed
            unmark(folder)
            shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        self._is_saving_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._is_saving_checkpoint = False
            self.args.save_total_limit = limit
        if self.args.should_save:
            self.guard.counts.save(folder)
            self._save_heads(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(folder)
            if limit is not None:
                self._finish_current_push()  # it reads a checkpoint that may go now
            # Only now: the last complete checkpoint must never go before there is a newer one.
            rotate_checkpoints(
                output_dir=run_folder,
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _save_heads(self, folder: Path) -> None:
        """Write the heads of auxiliary losses, which are no part of the model."""
        if self._auxiliary is not None:
            tensors = {key: value.contiguous() for key, value in self._auxiliary.heads.state_dict().items()}
            safetensors.torch.save_file(tensors, folder / HEADS_FILE)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        folder = self.args.output_dir if output_dir is None else output_dir
        if self._is_saving_checkpoint and self._saves_components:
            if self.args.should_save:
                self._save_components(folder, state_dict)
            return
        if not self._is_saving_checkpoint and self._weights_dtype is not None:
            # Parts that learn are held in float32; what is published has the dtype that was loaded.
            state_dict = self._unwrapped.state_dict() if state_dict is None else state_dict
            state_dict = _cast(state_dict, self._weights_dtype)
        super()._save(folder, state_dict)
        if not self.args.should_save:
            return
        if not self._is_saving_checkpoint:
            Path(folder, ARGUMENTS_FILE).unlink(missing_ok=True)
        if self._is_peft:
            from .lora import hide_base_path

            hide_base_path(folder)
            write_training_card(folder, self._summary())  # in place of one that names the base by its path

    def _save_components(self, folder: str, state_dict: dict[str, torch.Tensor] | None) -> None:
        """Write the components that learn."""
        names = [name for name in COMPONENT_FILES if name in self.args.trainable_modules]
        if state_dict is None:
            for name in names:
                self._unwrapped.save_component(name, folder)
            return
        # The parameters lie on several machines; they were collected into `state_dict`.
        os.makedirs(folder, exist_ok=True)
        for name in names:
            tensors = {
                key.removeprefix("model."): value.contiguous()
                for key, value in state_dict.items()
                if component_of_key(key) == name
            }
            safetensors.torch.save_file(tensors, component_path(folder, name), metadata={"format": "pt"})
        self._unwrapped.config.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        heads = Path(resume_from_checkpoint, HEADS_FILE)
        if self._auxiliary is not None and heads.exists():
            self._auxiliary.heads.load_state_dict(safetensors.torch.load_file(heads))
        has_weights = any(
            Path(resume_from_checkpoint, name).exists() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
        )
        files = {name: component_path(resume_from_checkpoint, name) for name in COMPONENT_FILES}
        files = {name: file for name, file in files.items() if file.exists()}
        if has_weights or not files or self.is_fsdp_enabled:  # sharded weights lie beside the components
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        for name, file in files.items():
            self._unwrapped.load_component(file, component=name)

    def _load_best_model(self) -> None:
        if self._saves_components:
            self._load_from_checkpoint(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload a checkpoint as a repository, as often as `hub_strategy` says, without what belongs to this machine."""
        strategy = self.args.hub_strategy
        if not self.is_world_process_zero() or strategy == HubStrategy.END or self._saves_components:
            return
        current = self.push_in_progress
        is_busy = current is not None and not current.is_done()
        if is_busy and not self.args.hub_always_push:
            return
        options = {
            "repo_id": self.hub_model_id,
            "folder_path": checkpoint_folder,
            "token": self.args.hub_token,
            "revision": self.args.hub_revision,
            "commit_message": f"Training in progress, step {self.state.global_step}",
            "run_as_future": True,
        }
        jobs = [hf_api().upload_folder(ignore_patterns=[*_STATE_FILES, ARGUMENTS_FILE], **options)]
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            name = "last-checkpoint" if strategy == HubStrategy.CHECKPOINT else Path(checkpoint_folder).name
            jobs.append(hf_api().upload_folder(path_in_repo=name, ignore_patterns=[ARGUMENTS_FILE], **options))
        if is_busy:
            current.jobs.extend(jobs)
        else:
            self.push_in_progress = PushInProgress(jobs)

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: Any = None, **kwargs: Any
    ) -> None:
        """Write the model card of this run into the output folder.

        Args:
            model_name (`str`, *optional*): Not used; taken for the library's sake, as are `tags` and `kwargs`.
            dataset_name (`str`, *optional*): The data, where the trainer does not know its sources.
            tags (`list[str]`, *optional*): Not used.
            kwargs: Not used.
        """
        if self.is_world_process_zero():
            write_training_card(self.args.output_dir, self._summary(dataset_name))

    def _summary(self, dataset_name: str | None = None) -> TrainingSummary:
        """Collect what the card tells: settings of the run and how far it is."""
        args = self.args
        rates = sorted({f"{group['name']} {group['initial_lr']:g}" for group in self._optimizer_groups()})
        facts = [
            ("stage", args.stage),
            ("parts that learn", ", ".join(self._learning_modules) + (" (LoRA)" if self._is_peft else "")),
            (
                "optimizer",
                f"{args.matrix_optimizer} and {_plain(args.optim)}" if args.matrix_optimizer else _plain(args.optim),
            ),
            ("learning rates", ", ".join(rates) or args.learning_rate),
            ("schedule", f"{_plain(args.lr_scheduler_type)}, warm-up {args.warmup_steps:g}"),
            ("rows per step", args.train_batch_size * args.gradient_accumulation_steps * args.world_size),
            ("share of multi-frame rows", args.multi_frame_ratio),
            ("questions per video and batch", args.questions_per_video),
            ("auxiliary losses", ", ".join(self._auxiliary.names) if self._auxiliary is not None else None),
            ("steps", self.state.global_step),
            ("rows seen", self.guard.counts.seen),
            ("rows left out as unusable", self.guard.counts.unusable),
            ("rows left out as too long", self.guard.counts.too_long),
            ("last loss", next((f"{e['loss']:.4f}" for e in reversed(self.state.log_history) if "loss" in e), None)),
        ]
        return TrainingSummary(
            base_model=self._base_name,
            datasets=[dataset_name] if dataset_name else self.dataset_names,
            facts=[(key, str(value)) for key, value in facts if value is not None],
            is_adapter=self._is_peft,
        )

    def _optimizer_groups(self) -> list[dict[str, Any]]:
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        return [group for group in groups if "name" in group and "initial_lr" in group]


def _plain(setting: Any) -> Any:
    """Return the name of a choice, which the library's settings hold as an enumeration or as text."""
    return getattr(setting, "value", setting)


def _cast(state_dict: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Cast weights; those that share their memory still do, so that tied ones are written once."""
    done: dict[tuple, torch.Tensor] = {}
    for value in state_dict.values():
        place = (value.data_ptr(), value.shape, value.stride())
        if place not in done:
            done[place] = value.to(dtype) if value.is_floating_point() else value
    return {key: done[value.data_ptr(), value.shape, value.stride()] for key, value in state_dict.items()}
