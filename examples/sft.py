# /// script
# requires-python = ">=3.11"
# dependencies = ["transformers-videorefer[train]"]
# ///
"""Train VideoRefer: one of the paper's stages, a fine-tuning of your own, or LoRA adapters.

    # the miniature, on a CPU, from an empty machine
    accelerate launch examples/sft.py --config examples/configs/tiny.yaml

    # stage 3 on 8 GPUs; any field of the YAML may be given on the command line
    accelerate launch --config_file examples/accelerate_configs/zero2.yaml examples/sft.py \
        --config examples/configs/stage3.yaml --model_name_or_path stage2_5 --output_dir stage3

    # LoRA on one GPU
    accelerate launch --config_file examples/accelerate_configs/one_gpu.yaml examples/sft.py \
        --config examples/configs/lora.yaml

The same command goes on with an interrupted run when `--resume_from_checkpoint true` is added. What is trained is saved
as a repository of its own in `--output_dir`. docs/training.md explains the settings.
"""

import json
import logging
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin, set_seed

from transformers_videorefer import VideoReferForConditionalGeneration, VideoReferProcessor
from transformers_videorefer.bundled import TINY_CHECKPOINT, TINY_MODEL
from transformers_videorefer.training import VideoReferSFTConfig, VideoReferSFTTrainer
from transformers_videorefer.training.auxiliary import load_auxiliary_loss
from transformers_videorefer.training.lora import quantize_language_model_only
from transformers_videorefer.training.mixtures import build_mixture
from transformers_videorefer.training.sources import DataSource
from transformers_videorefer.training.starting import start_anew


try:
    from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config
except ImportError as error:
    raise ImportError(
        'This script needs `trl`. Install it with `pip install "transformers-videorefer[train]"`.'
    ) from error

_EXAMPLE = '[{"path": "..."}]'


@dataclass
class ScriptArguments:
    """What to train on, and what to start from where that is no checkpoint of VideoRefer.

    Args:
        datasets (`list` or `str`): Sources of the training rows: a YAML list, or the same as JSON text on the command
            line. See `DataSource` for the keys.
        eval_datasets (`list` or `str`, *optional*): Sources of the rows that the loss is measured on.
        dataset_streaming (`bool`, *optional*, defaults to `False`): Read rows as they are needed; needs `max_steps`.
        dataset_oversample (`bool`, *optional*, defaults to `False`): With weights, let rows of small sources come again.
        vision_model (`str`, *optional*): SigLIP checkpoint of a new model; together with `text_model` in place of
            `model_name_or_path`.
        text_model (`str`, *optional*): Qwen2 checkpoint of a new model.
        components (`list[str]`, *optional*): Files, folders or Hub ids of a connector or region encoder to start from.
        new_modules (`list[str]`, *optional*): Parts of the checkpoint that start at random, of `connector`,
            `region_encoder`, `language_model` and `lm_head`.
        auxiliary_losses (`list` or `str`, *optional*): Losses beside the next token: `path` (`module:Class`, a subclass
            of `AuxiliaryLoss`; modules beside this file are found) and the arguments of the class.
    """

    datasets: list | str | None = field(default=None, metadata={"help": "Sources of training rows."})
    eval_datasets: list | str | None = field(default=None, metadata={"help": "Sources of evaluation rows."})
    dataset_streaming: bool = field(default=False, metadata={"help": "Read rows as they are needed."})
    dataset_oversample: bool = field(default=False, metadata={"help": "Let rows of small sources come again."})
    vision_model: str | None = field(default=None, metadata={"help": "SigLIP checkpoint of a new model."})
    text_model: str | None = field(default=None, metadata={"help": "Qwen2 checkpoint of a new model."})
    components: list[str] | None = field(default=None, metadata={"help": "Connector or region encoder to load."})
    new_modules: list[str] | None = field(default=None, metadata={"help": "Parts that start at random."})
    auxiliary_losses: list | str | None = field(default=None, metadata={"help": "Losses beside the next token."})

    def __post_init__(self) -> None:
        """Read lists that come as text, as they do on the command line."""
        for name in ("datasets", "eval_datasets", "auxiliary_losses"):
            text = getattr(self, name)
            if isinstance(text, str):
                try:
                    setattr(self, name, json.loads(text))
                except json.JSONDecodeError as error:
                    raise ValueError(
                        f"`{name}` must be a JSON list such as {_EXAMPLE}, got {text!r}: {error}."
                    ) from error
            if getattr(self, name) is not None and not isinstance(getattr(self, name), list):
                raise ValueError(f"`{name}` must be a list such as {_EXAMPLE}, got {getattr(self, name)!r}.")


def load_model(
    script: ScriptArguments, model: ModelConfig, training: VideoReferSFTConfig
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load what training starts from.

    Args:
        script ([`ScriptArguments`]): Parts of a new model, and components.
        model (`ModelConfig`): The checkpoint and how to load it.
        training ([`VideoReferSFTConfig`]): Names this process.

    Returns:
        `tuple[PreTrainedModel, ProcessorMixin]`: Model and processor.

    Raises:
        ValueError: If neither a checkpoint nor both parts of a new model are named.
    """
    if model.model_name_or_path is not None:
        name = str(TINY_CHECKPOINT) if model.model_name_or_path == TINY_MODEL else model.model_name_or_path
        quantization = get_quantization_config(model)
        options = {"dtype": model.dtype, "attn_implementation": model.attn_implementation}
        if quantization is not None:  # such weights are made on the device where they stay
            options["quantization_config"] = quantize_language_model_only(quantization)
            options["device_map"] = {"": training.local_process_index}
        loaded = VideoReferForConditionalGeneration.from_pretrained(name, **options)
        processor = AutoProcessor.from_pretrained(name)
    elif script.vision_model and script.text_model:
        parts = {"vision": script.vision_model, "text": script.text_model}
        loaded = VideoReferForConditionalGeneration.from_vision_text_pretrained(**parts, dtype=model.dtype)
        processor = VideoReferProcessor.from_vision_text_pretrained(**parts)
    else:
        raise ValueError("Name what to start from: `model_name_or_path`, or `vision_model` and `text_model`.")
    start_anew(loaded, script.new_modules or ())
    for component in script.components or ():
        loaded.load_component(component)
    return loaded, processor


def load_rows(sources: list[dict[str, Any]] | None, script: ScriptArguments, training: VideoReferSFTConfig) -> Any:
    """Load a mixture; the first process fills the cache that the others read."""
    if not sources:
        return None
    with training.main_process_first(desc="loading the data"):
        return build_mixture(
            sources,
            streaming=script.dataset_streaming,
            seed=training.seed,
            oversample=script.dataset_oversample,
            num_proc=training.dataset_num_proc,
        )


def find_contradiction(script: ScriptArguments, training: VideoReferSFTConfig, model: ModelConfig) -> str | None:
    """Find a setting that another one leaves without effect."""
    lora = [one.name for one in fields(ModelConfig) if one.name.startswith(("lora_", "use_rslora", "use_dora"))]
    plain = ModelConfig()
    given = [name for name in lora if getattr(model, name) != getattr(plain, name)]
    if given and not model.use_peft:
        return f"`{given[0]}` is given, but `use_peft` is false: add `--use_peft true`, or leave it out"
    if not script.datasets:
        return "no training rows: `datasets` is empty"
    if script.eval_datasets and training.eval_strategy == "no":
        return "`eval_datasets` is given, but `eval_strategy` is no: choose steps or epoch, or leave the rows out"
    return None


def main() -> None:
    """Train as the YAML file and the command line say, and save."""
    # No short forms: a mistyped option must not pass for another one.
    parser = TrlParser((ScriptArguments, VideoReferSFTConfig, ModelConfig), allow_abbrev=False)
    script, training, model_settings = parser.parse_args_and_config()
    contradiction = find_contradiction(script, training, model_settings)
    if contradiction is not None:
        parser.error(contradiction)
    logging.basicConfig(level=logging.INFO if training.should_log else logging.WARNING, format="%(message)s")
    set_seed(training.seed)  # a new connector or region encoder starts at random
    model, processor = load_model(script, model_settings, training)
    trainer = VideoReferSFTTrainer(
        model=model,
        args=training,
        train_dataset=load_rows(script.datasets, script, training),
        eval_dataset=load_rows(script.eval_datasets, script, training),
        processing_class=processor,
        peft_config=get_peft_config(model_settings),
        auxiliary_losses=[load_auxiliary_loss(**options) for options in script.auxiliary_losses or ()],
        dataset_names=sorted({DataSource.from_dict(source).label for source in script.datasets}),
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)
    trainer.create_model_card()


if __name__ == "__main__":
    main()
