"""What the answers of a run depend on, and the preset of the released scripts."""

from dataclasses import dataclass, replace
from typing import Any

from transformers import GenerationConfig, ProcessorMixin

from transformers_videorefer.regions.values import ALL_FRAMES

from .answering import DEFAULT_MAX_NEW_TOKENS, MODES
from .benches import SURPLUS_REGIONS
from .controls import CONTROLS


# The released scripts encode 8 scene frames though the model was trained with 16, keep empty masks as masks of nothing,
# count hidden frames, ignore surplus objects, and decode greedily under the penalty of the checkpoint's generation_config.
PRESETS: dict[str, dict[str, Any]] = {
    "published": {
        "num_frames": 8,
        "empty_masks": "keep",
        "edit_list": "ignore",
        "surplus_regions": "ignore",
        "repetition_penalty": 1.05,
        "max_new_tokens": 2048,
    }
}


METHODS = ("auto", "regions", "outlines")


@dataclass(frozen=True)
class BenchSettings:
    """Settings of a benchmark run; None stands for what processor or checkpoint say.

    Attributes:
        method (`str`): How objects are shown: "regions" (tokens of VideoRefer), "outlines" (drawn into the frames, for
            any chat model), or "auto" (what fits the model).
        control (`str`, *optional*): "text-only" asks without the picture, "no-region" without the regions.
        mode (`str`): "single" (one frame of each region) or "multi" (all annotated frames).
        num_frames (`int`, *optional*): Scene frames per video.
        num_region_tokens (`int`, *optional*): Most tokens of a region, u of the paper.
        num_region_frames (`int` or `str`, *optional*): Most frames used of a region, or "all".
        empty_masks (`str`): "error", "drop" or "keep".
        edit_list (`str`, *optional*): "apply" or "ignore"; None leaves it to each row.
        surplus_regions (`str`): What becomes of samples with more objects than marks, "error" or "ignore".
        max_new_tokens (`int`): Longest answer.
        repetition_penalty (`float`, *optional*): Penalty on tokens generated before.

    Raises:
        ValueError: If a value is impossible.
    """

    method: str = "auto"
    control: str | None = None
    mode: str = "multi"
    num_frames: int | None = None
    num_region_tokens: int | None = None
    num_region_frames: int | str | None = None
    empty_masks: str = "drop"
    edit_list: str | None = None
    surplus_regions: str = "error"
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {self.method!r}.")
        if self.control is not None and self.control not in CONTROLS:
            raise ValueError(f"`control` must be one of {', '.join(CONTROLS)} or None, got {self.control!r}.")
        if self.mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {self.mode!r}.")
        if self.surplus_regions not in SURPLUS_REGIONS:
            raise ValueError(f'`surplus_regions` must be "error" or "ignore", got {self.surplus_regions!r}.')
        for name, least in (("num_frames", 1), ("num_region_tokens", 1), ("max_new_tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` is {value}. Pass at least {least}.")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ValueError(f"`repetition_penalty` is {self.repetition_penalty}. Pass a number above 0; 1 is none.")

    def resolved(self, processor: ProcessorMixin, generation_config: GenerationConfig) -> "BenchSettings":
        """Put numbers where processor and checkpoint decide, so that results name them.

        Args:
            processor ([`VideoReferProcessor`]): The processor.
            generation_config (`GenerationConfig`): That of the model.

        Returns:
            [`BenchSettings`].
        """
        region_frames = self.num_region_frames
        if region_frames is None:
            region_frames = ALL_FRAMES if processor.num_region_frames is None else processor.num_region_frames
        penalty = self.repetition_penalty
        return replace(
            self,
            num_frames=self.num_frames or processor.video_processor.num_frames,
            num_region_tokens=self.num_region_tokens or processor.num_region_tokens,
            num_region_frames=region_frames,
            repetition_penalty=(generation_config.repetition_penalty or 1.0) if penalty is None else penalty,
        )


def make_settings(preset: str | None = None, **given: Any) -> BenchSettings:
    """Make settings from a preset and what goes before it.

    Args:
        preset (`str`, *optional*): "published" repeats the released scripts.
        given: Fields of [`BenchSettings`].

    Returns:
        [`BenchSettings`].

    Raises:
        ValueError: If the preset is unknown or a value impossible.
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"`preset` must be one of {', '.join(PRESETS)}, got {preset!r}.")
    return BenchSettings(**{**(PRESETS[preset] if preset else {}), **given})
