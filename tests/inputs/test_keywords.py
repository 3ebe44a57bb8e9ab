"""Keywords of the processor."""

import numpy as np
import pytest

from transformers_videorefer.inputs.keywords import (
    as_python,
    check_call_settings,
    check_keywords,
    check_near_misses,
)


def test_keywords():
    check_keywords(["padding", "regions"], {"padding", "regions"}, "It")
    with pytest.raises(TypeError, match="It has no argument `region`. Did you mean `regions`?"):
        check_keywords(["padding", "region"], {"padding", "regions"}, "It")
    with pytest.raises(TypeError, match="It has no argument `xyz`. Leave it out."):
        check_keywords(["xyz"], {"padding", "regions"}, "It")


def test_near_misses_only():
    known = {"add_generation_prompt", "padding", "tools"}
    check_near_misses(["enable_thinking", "date_string", "xml_tools"], known, "It")
    with pytest.raises(TypeError, match="Did you mean `add_generation_prompt`"):
        check_near_misses(["date_string", "add_generation_promt"], known, "It")


def test_settings_of_the_checkpoint():
    merged = {
        "videos_kwargs": {"num_frames": 4, "size": None, "do_resize": False},
        "images_kwargs": {"do_rescale": True},
    }
    check_call_settings(merged, has_videos=False, has_images=False)
    with pytest.raises(ValueError, match="`do_resize` cannot change from call to call"):
        check_call_settings(merged, has_videos=True, has_images=False)
    with pytest.raises(ValueError, match="`do_rescale` cannot change from call to call"):
        check_call_settings(merged, has_videos=False, has_images=True)


def test_python_numbers():
    assert type(as_python(np.float32(0.5))) is float
    assert type(as_python(np.int64(2))) is int
    assert as_python([np.int64(2)]) == [2]
    assert as_python(None) is None
