"""Which model answers a benchmark, and how: VideoRefer with object tokens, other chat models with outlines."""

import argparse
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from transformers_videorefer import VideoReferConfig
from transformers_videorefer.evaluation.answering import VideoReferAnswerer
from transformers_videorefer.evaluation.benchmarking import Ranks
from transformers_videorefer.evaluation.controls import CONTROLS, NoRegion, TextOnly
from transformers_videorefer.evaluation.outlines import OutlineAnswerer
from transformers_videorefer.evaluation.provenance import describe_model, hub_commit
from transformers_videorefer.evaluation.settings import METHODS, BenchSettings

from .model_flags import find_model
from .progress import report_when_slow


# Settings that only object tokens have; the last two may be given for other models too, but no preset decides them.
_ONLY_REGIONS = ("num_region_tokens", "num_region_frames", "empty_masks")
_NOT_OF_PRESETS = ("num_frames", "repetition_penalty")


def add_method_flags(group: Any) -> None:
    """Declare the flags that say how a model is asked.

    Args:
        group (`argparse._ArgumentGroup`): Where they are added.
    """
    group.add_argument(
        "--method",
        choices=METHODS,
        default=argparse.SUPPRESS,
        help="regions: object tokens (VideoRefer); outlines: drawn into the frames (any chat model); default: auto",
    )
    group.add_argument(
        "--control",
        choices=tuple(CONTROLS),
        default=argparse.SUPPRESS,
        help="ask without the picture or without the regions, to see what can be answered blind",
    )


def load_checkpoint(
    arguments: argparse.Namespace, ranks: Ranks | None = None
) -> tuple[PreTrainedModel, ProcessorMixin, dict[str, Any]]:
    """Load model and processor.

    Args:
        arguments (`argparse.Namespace`): Flags; of them `model`, `device`, `dtype`, `vision_tower` and
            `trust_remote_code` count.
        ranks ([`Ranks`], *optional*): The processes of the run, each of which has a device of its own.

    Returns:
        `tuple`: The model, its processor, and what identifies the checkpoint.

    Raises:
        ValueError: If the device cannot be used.
        OSError: If the checkpoint cannot be read.
    """
    checkpoint = find_model(arguments)
    device = arguments.device
    # "cuda" means the device of this process too: every process would take the first one otherwise.
    if ranks is not None and ranks.device is not None and device in ("auto", ranks.device.type):
        device = str(ranks.device)
    with report_when_slow(f"loading {arguments.model}"):
        processor = checkpoint.load_processor()
        model = checkpoint.load_model(device, arguments.dtype)
    return model, processor, describe_model(checkpoint.source, hub_commit(checkpoint.source))


def fit_settings(
    settings: BenchSettings, given: Collection[str], model: PreTrainedModel, processor: ProcessorMixin
) -> BenchSettings:
    """Settle how a model is asked, and put numbers where processor and checkpoint decide.

    Args:
        settings ([`BenchSettings`]): The settings.
        given (`Collection[str]`): Names of those that were asked for by flags.
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): Its processor.

    Returns:
        [`BenchSettings`]: With the method, and without what it does not use.

    Raises:
        ValueError: If method and model, or settings and method, do not fit.
    """
    is_ours = model.config.model_type == VideoReferConfig.model_type
    method = settings.method
    if method == "auto":
        method = "regions" if is_ours else "outlines"
    if method == "regions":
        if not is_ours:
            raise ValueError(
                f"`--method regions`: a model of type {model.config.model_type} has no object tokens. Use outlines."
            )
        if settings.num_frames == 1:
            raise ValueError("`--num-frames 1`: VideoRefer needs at least 2 scene frames.")
        return replace(settings, method=method).resolved(processor, model.generation_config)
    unused = [name for name in _ONLY_REGIONS if name in given]
    if unused:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise ValueError(f"{flags}: this has no effect on outlines. Drop it.")
    # The preset speaks of VideoRefer: its frames and its penalty are not those of other models.
    defaults = BenchSettings()
    names = (*_ONLY_REGIONS, *(name for name in _NOT_OF_PRESETS if name not in given))
    settings = replace(settings, method=method, **{name: getattr(defaults, name) for name in names})
    return replace(settings, num_frames=_outlining(model, processor, None, settings).prepare.num_frames)


def make_answerer(
    model: PreTrainedModel, processor: ProcessorMixin, videos: str | None, settings: BenchSettings
) -> VideoReferAnswerer | OutlineAnswerer | TextOnly | NoRegion:
    """Make what answers the samples.

    Args:
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): Its processor.
        videos (`str`, *optional*): Folder that paths of videos are relative to.
        settings ([`BenchSettings`]): What `fit_settings` returned.

    Returns:
        [`Answerer`].
    """
    if settings.method == "outlines":
        answerer = _outlining(model, processor, videos, settings)
    else:
        answerer = VideoReferAnswerer(
            model,
            processor,
            data_root=videos,
            mode=settings.mode,
            num_frames=settings.num_frames,
            num_region_tokens=settings.num_region_tokens,
            num_region_frames=settings.num_region_frames,
            empty_masks=settings.empty_masks,
            edit_list=settings.edit_list,
            max_new_tokens=settings.max_new_tokens,
            repetition_penalty=settings.repetition_penalty,
        )
    return answerer if settings.control is None else CONTROLS[settings.control](answerer)


def _outlining(
    model: PreTrainedModel, processor: ProcessorMixin, videos: str | None, settings: BenchSettings
) -> OutlineAnswerer:
    return OutlineAnswerer(
        model,
        processor,
        data_root=videos,
        mode=settings.mode,
        num_frames=settings.num_frames,
        edit_list=settings.edit_list,
        max_new_tokens=settings.max_new_tokens,
        repetition_penalty=settings.repetition_penalty,
    )
