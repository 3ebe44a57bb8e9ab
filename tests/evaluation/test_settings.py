import pytest
from tiny import tiny_processor
from transformers import GenerationConfig

from transformers_videorefer.evaluation.settings import BenchSettings, make_settings


def test_the_preset_repeats_the_released_scripts() -> None:
    settings = make_settings("published", mode="single")
    assert settings == BenchSettings(
        mode="single",
        num_frames=8,
        empty_masks="keep",
        edit_list="ignore",
        surplus_regions="ignore",
        repetition_penalty=1.05,
        max_new_tokens=2048,
    )


def test_flags_go_before_the_preset() -> None:
    assert make_settings("published", num_frames=16, num_region_tokens=8).num_frames == 16
    assert make_settings() == BenchSettings()


def test_results_name_what_processor_and_checkpoint_decide() -> None:
    processor = tiny_processor(num_region_tokens=4, num_region_frames=None)
    settings = BenchSettings().resolved(processor, GenerationConfig(repetition_penalty=1.1))
    assert (settings.num_frames, settings.num_region_tokens, settings.num_region_frames) == (4, 4, "all")
    assert settings.repetition_penalty == 1.1
    given = BenchSettings(num_frames=6, num_region_tokens=2, num_region_frames=5, repetition_penalty=1.0)
    assert given.resolved(processor, GenerationConfig(repetition_penalty=1.1)) == given
    assert BenchSettings().resolved(processor, GenerationConfig()).repetition_penalty == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "both"}, "`mode` must be one of single, multi, got 'both'"),
        ({"num_frames": 0}, "`num_frames` is 0"),
        ({"method": "boxes"}, "`method` must be one of auto, regions, outlines, got 'boxes'"),
        ({"control": "blind"}, "`control` must be one of text-only, no-region or None, got 'blind'"),
        ({"num_region_tokens": 0}, "`num_region_tokens` is 0"),
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` is 0.0"),
        ({"surplus_regions": "keep"}, "`surplus_regions` must be"),
        ({"preset": "paper"}, "`preset` must be one of published"),
    ],
)
def test_impossible_values_are_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_settings(**given)
