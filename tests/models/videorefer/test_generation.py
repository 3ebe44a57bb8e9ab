"""Generation with regions: every mode gives what single, plain runs give."""

import copy
import inspect

import pytest
import torch
from tiny import NUM_FRAMES, box_region, noise_video, tiny_model, tiny_processor
from transformers import Qwen2Config, Qwen2ForCausalLM, TextStreamer

from transformers_videorefer.checkpoints.library import CACHE_NAME


MARKED = "<|im_start|>user\n<video>\nWhat is <region> doing?<|im_end|>\n<|im_start|>assistant\n"
THREE = "<|im_start|>user\n<video>\nHow do <region>, <region> and <region> meet?<|im_end|>\n<|im_start|>assistant\n"
PLAIN = "<|im_start|>user\n<video>\nDescribe it.<|im_end|>\n<|im_start|>assistant\n"
IMAGE = "<|im_start|>user\n<image>\nWhat is <region>?<|im_end|>\n<|im_start|>assistant\n"
TEXT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
# Random logits are nearly flat; 328 would end some answers early and hide differences.
GREEDY = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def samples() -> list[dict]:
    """No region, one region of 1 frame, three of 1, 5 and 32, image, text only."""
    long_video = noise_video(40, seed=1)
    return [
        {"text": PLAIN, "videos": noise_video(seed=2)},
        {"text": MARKED, "videos": noise_video(seed=3), "regions": [box_region([5])]},
        {
            "text": THREE,
            "videos": long_video,
            "regions": [box_region([7]), box_region([0, 3, 9, 20, 39], 10), box_region(list(range(4, 36)), 20)],
        },
        {"text": IMAGE, "images": noise_video(1, seed=4)[0], "regions": [box_region([0])]},
        {"text": TEXT},
    ]


def single_inputs(processor, **options):
    return [processor(**sample, return_tensors="pt", **options) for sample in samples()]


def batch_inputs(processor, **options):
    mix = samples()
    return processor(
        text=[sample["text"] for sample in mix],
        videos=[sample["videos"] for sample in mix if "videos" in sample],
        images=[sample["images"] for sample in mix if "images" in sample],
        regions=[sample.get("regions") for sample in mix],
        return_tensors="pt",
        **options,
    )


def answers(model, inputs, **options):
    output = model.generate(**inputs, **{**GREEDY, **options})
    return output[:, inputs["input_ids"].shape[1] :]


def test_mixed_batch_equals_single_runs(model, processor):
    batch = batch_inputs(processor)
    # Third sample: frames 4..35, 0, 3 and 39 carry regions; 5, 15, 24 and 34 of them are scene frames.
    assert batch["sample_counts"].tolist() == [[1, 0, 0, 0], [1, 0, 1, 1], [1, 0, 31, 3], [0, 1, 0, 1], [0, 0, 0, 0]]
    together = answers(model, batch)
    with torch.no_grad():
        logits = model(**batch).logits
    for sample, single in enumerate(single_inputs(processor)):
        assert together[sample].tolist() == answers(model, single)[0].tolist()
        length = single["input_ids"].shape[1]
        with torch.no_grad():
            alone = model(**single).logits[0]
        torch.testing.assert_close(logits[sample, -length:], alone, atol=1e-4, rtol=0)


def test_right_padding_gives_the_same_logits(model, processor):
    right = batch_inputs(processor, padding_side="right")
    with torch.no_grad():
        logits = model(**right).logits
    for sample, single in enumerate(single_inputs(processor)):
        length = single["input_ids"].shape[1]
        assert right["input_ids"][sample, :length].tolist() == single["input_ids"][0].tolist()
        with torch.no_grad():
            torch.testing.assert_close(logits[sample, :length], model(**single).logits[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 3},
        {"num_beams": 2, "num_return_sequences": 2, "repetition_penalty": 1.3},
    ],
    ids=["beam", "beam_3_returns", "beam_penalty"],
)
def test_beams_equal_single_runs(model, processor, options):
    together = answers(model, batch_inputs(processor), **options)
    copies = options.get("num_return_sequences", 1)
    for sample, single in enumerate(single_inputs(processor)):
        alone = answers(model, single, **options)
        assert together[sample * copies : (sample + 1) * copies].tolist() == alone.tolist()


def test_sampled_return_sequences_see_their_own_regions(model, processor):
    # With a vanishing temperature, sampling is greedy: all three sequences must be the greedy answer.
    batch = batch_inputs(processor)
    sampled = answers(model, batch, do_sample=True, temperature=1e-4, num_return_sequences=3)
    greedy = answers(model, batch)
    assert sampled.tolist() == greedy.repeat_interleave(3, dim=0).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"cache_implementation": "static", "disable_compile": True},
        {"prefill_chunk_size": 8},
    ],
    ids=["no_cache", "static_cache", "chunked_prefill"],
)
def test_modes_equal_the_plain_path(model, processor, options):
    batch = batch_inputs(processor)
    assert answers(model, batch, **options).tolist() == answers(model, batch).tolist()


def test_prompt_lookup_equals_the_plain_path(model, processor):
    # Candidates are copied from the prompt, placeholders included; ids 330 and 331 lie beyond the embedding table.
    for single in single_inputs(processor):
        plain = answers(model, single, max_new_tokens=16)
        assert answers(model, single, max_new_tokens=16, prompt_lookup_num_tokens=4).tolist() == plain.tolist()


def test_an_assistant_sees_the_video(model, processor):
    single = single_inputs(processor)[2]
    plain = answers(model, single)
    draft, seen = tiny_model(), []
    forward = draft.model.forward
    draft.model.forward = lambda **kwargs: seen.append(kwargs.get("mm_encoder_outputs")) or forward(**kwargs)
    assert answers(model, single, assistant_model=draft).tolist() == plain.tolist()
    assert [sorted(outputs or {}) for outputs in seen][:2] == [["region", "video"], []]


def test_an_assistant_of_another_width_guesses_without_the_video(model, processor):
    narrow = {**tiny_model().config.text_config.to_dict(), "hidden_size": 24, "num_attention_heads": 2}
    narrow |= {"num_key_value_heads": 1, "head_dim": 12}
    single = single_inputs(processor)[2]
    assert answers(model, single, assistant_model=tiny_model(text_config=narrow)).tolist() == (
        answers(model, single).tolist()
    )


@pytest.mark.parametrize("chunked", ["call", "assistant"])
def test_an_assistant_beside_chunked_prefill(model, processor, chunked):
    single, draft = single_inputs(processor)[2], tiny_model()
    if chunked == "assistant":
        draft.generation_config.prefill_chunk_size = 5
    options = {"prefill_chunk_size": 5} if chunked == "call" else {}
    assert answers(model, single, assistant_model=draft, **options).tolist() == answers(model, single).tolist()


def test_a_plain_language_model_assists(model, processor):
    config = Qwen2Config(
        vocab_size=330, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, eos_token_id=328, pad_token_id=326,
    )  # fmt: skip
    draft = Qwen2ForCausalLM(config).eval()
    draft.generation_config.pad_token_id = 326
    text = single_inputs(processor)[-1]
    assert answers(model, text, assistant_model=draft).tolist() == answers(model, text).tolist()


@pytest.mark.parametrize("again", ["ids", "all_inputs"])
def test_a_conversation_goes_on_from_its_cache(model, processor, again):
    single = single_inputs(processor)[2]
    expected = model.generate(**single, **{**GREEDY, "max_new_tokens": 12})
    first = model.generate(**single, **{**GREEDY, "max_new_tokens": 5}, return_dict_in_generate=True)
    rest = {name: value for name, value in single.items() if name not in ("input_ids", "attention_mask")}
    found = model.generate(
        input_ids=first.sequences,
        attention_mask=torch.ones_like(first.sequences),
        **(rest if again == "all_inputs" else {}),
        **{CACHE_NAME: first[CACHE_NAME]},
        **{**GREEDY, "max_new_tokens": 7},
    )
    assert found.tolist() == expected.tolist()


def test_a_second_turn_brings_media_of_its_own(model, processor):
    """The cache holds the first video; all inputs of the whole conversation are passed, or those of the new turn."""
    second = "<|im_end|>\n<|im_start|>user\n<video>\nAnd <region>?<|im_end|>\n<|im_start|>assistant\n"
    videos, regions = [noise_video(seed=3), noise_video(seed=8)], [box_region([5]), box_region([2], 9)]
    single = processor(text=MARKED, videos=videos[:1], regions=regions[:1], return_tensors="pt")
    whole = processor(
        text=MARKED + second,
        videos=videos,
        regions=[{**region, "media": media} for media, region in enumerate(regions)],
        return_tensors="pt",
    )
    expected = answers(model, whole)
    with torch.no_grad():
        cache = model(**single)[CACHE_NAME]
    length = single["input_ids"].shape[1]
    found = model.generate(**whole, **GREEDY, **{CACHE_NAME: copy.deepcopy(cache)})
    assert found[:, whole["input_ids"].shape[1] :].tolist() == expected.tolist()
    new = processor(text=second, videos=videos[1:], regions=regions[1:], return_tensors="pt")
    assert torch.equal(new["input_ids"][0], whole["input_ids"][0, length:])
    new["attention_mask"] = whole["attention_mask"]
    found = model.generate(**new, **GREEDY, **{CACHE_NAME: copy.deepcopy(cache)})
    assert found[:, new["input_ids"].shape[1] :].tolist() == expected.tolist()
    # With too few features the count is still checked.
    lacking = {name: value for name, value in whole.items() if not name.startswith(("region_", "sample_"))}
    with pytest.raises(ValueError, match=r"placeholder tokens, but the 0 region\(s\) of the batch give 0 tokens"):
        model.generate(**lacking, **GREEDY, **{CACHE_NAME: copy.deepcopy(cache)})


def test_generation_equals_a_loop_over_forward(model, processor):
    inputs = dict(single_inputs(processor)[2])
    expected = answers(model, inputs)[0].tolist()
    ids, found = inputs.pop("input_ids"), []
    inputs.pop("attention_mask")
    num_prompt_tokens = ids.shape[1]
    for _ in expected:
        with torch.no_grad():
            logits = model(input_ids=ids, num_prompt_tokens=num_prompt_tokens, **inputs).logits[0, -1]
        found.append(int(logits.argmax()))
        ids = torch.cat([ids, torch.tensor([[found[-1]]])], dim=1)
    assert found == expected


def test_generated_region_id_is_an_ordinary_token(model, processor):
    # `<region>` has a row in the table, so the model may write it; it must not be taken for a mark.
    inputs = single_inputs(processor)[1]
    forced = {"max_new_tokens": 3, "sequence_bias": [[[329], 1e4]]}
    for options in ({}, {"use_cache": False}, {"num_beams": 2}):
        assert answers(model, inputs, **forced, **options).tolist() == [[329] * 3]


def test_repetition_penalty_counts_generated_tokens_only(model, processor):
    inputs = single_inputs(processor)[1]
    with torch.no_grad():
        first = model(**inputs).logits[0, -1]
    # The favourite token is made to stand in the prompt: a penalty on prompts would change the first answer token.
    favourite = int(first.argmax())
    text = MARKED.replace("doing", processor.tokenizer.decode([favourite]) + " doing")
    repeated = processor(text=text, videos=noise_video(seed=3), regions=[box_region([5])], return_tensors="pt")
    with torch.no_grad():
        logits = model(**repeated).logits[0, -1]
    expected, scores = [], logits
    ids = dict(repeated)
    prompt_length = ids["input_ids"].shape[1]
    for _ in range(6):
        for token in set(expected):
            scores[token] = scores[token] / 1.4 if scores[token] > 0 else scores[token] * 1.4
        expected.append(int(scores.argmax()))
        ids["input_ids"] = torch.cat([ids["input_ids"], torch.tensor([[expected[-1]]])], dim=1)
        ids["attention_mask"] = torch.ones_like(ids["input_ids"])
        with torch.no_grad():
            scores = model(**ids, num_prompt_tokens=prompt_length).logits[0, -1]
    assert answers(model, repeated, max_new_tokens=6, repetition_penalty=1.4)[0].tolist() == expected


def test_questions_share_one_tower_pass(model, processor, monkeypatch):
    video = noise_video(seed=5)
    questions = [
        {"text": MARKED, "regions": [box_region([0])]},
        {"text": MARKED, "regions": [box_region([1, 4], 9)]},
        {"text": PLAIN, "regions": []},
    ]
    # All four frames are scene frames, so no question brings a frame of its own.
    options = {"videos": video[:NUM_FRAMES], "return_tensors": "pt"}
    questions[1]["regions"] = [box_region([1, 3], 9)]
    inputs = [processor(**question, **options) for question in questions]
    plain = [answers(model, one).tolist() for one in inputs]
    passes = []
    tower = model.model.vision_tower
    original = tower.forward
    monkeypatch.setattr(
        tower,
        "forward",
        lambda pixel_values, **kwargs: passes.append(len(pixel_values)) or original(pixel_values, **kwargs),
    )
    encoded = {"video": model.get_video_features(inputs[0]["pixel_values_videos"])}
    for one, expected in zip(inputs, plain, strict=True):
        rest = {name: value for name, value in one.items() if name != "pixel_values_videos"}
        for options in ({}, {"num_beams": 2, "num_return_sequences": 2}):
            output = answers(model, rest, mm_encoder_outputs=encoded, **options)
            if not options:
                assert output.tolist() == expected
        with torch.no_grad():
            logits = model(**rest, mm_encoder_outputs=encoded).logits
            torch.testing.assert_close(logits, model(**one).logits, atol=1e-5, rtol=0)
            passes.pop()  # the plain forward pass just above
    assert passes == [NUM_FRAMES]
    assert list(encoded) == ["video"]


def test_encoder_outputs_go_before_inputs(model, processor, monkeypatch):
    inputs = single_inputs(processor)[2]
    expected = answers(model, inputs).tolist()
    encoded = {"video": model.get_video_features(**inputs)}
    encoded["region"] = model.get_region_features(**inputs)
    monkeypatch.setattr(model.model.vision_tower, "forward", None)
    assert answers(model, inputs, mm_encoder_outputs=encoded).tolist() == expected
    with torch.no_grad():
        model(**inputs, mm_encoder_outputs=encoded)


def test_one_clip_serves_a_batch_of_questions(model, processor):
    video = noise_video(seed=5)
    texts = [MARKED, PLAIN, MARKED]
    regions = [[box_region([1, 7])], [], [box_region([4], 9)]]
    batch = processor(text=texts, videos=[video] * 3, regions=regions, return_tensors="pt")
    expected = answers(model, batch).tolist()
    encoded = {"video": model.get_video_features(batch["pixel_values_videos"][:1])}
    rest = {name: value for name, value in batch.items() if name != "pixel_values_videos"}
    assert answers(model, rest, mm_encoder_outputs=encoded).tolist() == expected
    beams = {"num_beams": 2, "num_return_sequences": 2}
    assert (
        answers(model, rest, mm_encoder_outputs=encoded, **beams).tolist() == answers(model, batch, **beams).tolist()
    )
    assert len(encoded["video"].pooler_output) == 1


def test_precomputed_regions(model, processor):
    inputs = single_inputs(processor)[2]
    plain = answers(model, inputs)
    names = [name for name in inputs if name.startswith("region_")]
    video = model.get_video_features(inputs["pixel_values_videos"])
    region = model.get_region_features(
        **{name: inputs[name] for name in names},
        sample_counts=inputs["sample_counts"],
        mm_encoder_outputs={"video": video},
    )
    assert [len(tokens) for tokens in region.pooler_output] == [1, 4, 4]
    rest = {name: value for name, value in inputs.items() if name not in names and name != "pixel_values_videos"}
    outputs = {"video": video, "region": region}
    assert answers(model, rest, mm_encoder_outputs=outputs).tolist() == plain.tolist()
    beams = answers(model, inputs, num_beams=3, num_return_sequences=3)
    assert (
        answers(model, rest, mm_encoder_outputs=outputs, num_beams=3, num_return_sequences=3).tolist()
        == beams.tolist()
    )


def test_inputs_embeds(model, processor):
    inputs = single_inputs(processor)[2]
    captured = {}
    handle = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: captured.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        expected = model(**inputs).logits
    handle.remove()
    with torch.no_grad():
        logits = model(inputs_embeds=captured["inputs_embeds"]).logits
    torch.testing.assert_close(logits, expected)
    generated = model.generate(inputs_embeds=captured["inputs_embeds"], **GREEDY)
    assert generated.tolist() == answers(model, inputs).tolist()
    # Ids beside them only say what stands before the answer.
    ids = inputs["input_ids"]
    beside = model.generate(input_ids=ids, inputs_embeds=captured["inputs_embeds"], **GREEDY)
    assert beside.tolist() == torch.cat([ids, generated], dim=1).tolist()


def test_concatenated_single_outputs_equal_single_runs(model, processor):
    mix = single_inputs(processor)[1:3] + [
        processor(text=MARKED, videos=noise_video(seed=7), regions=[box_region([2, 3])], return_tensors="pt")
    ]
    length = max(one["input_ids"].shape[1] for one in mix)
    joined = {}
    for name in {name for one in mix for name in one}:
        parts = [one[name] for one in mix if name in one]
        if name in ("input_ids", "attention_mask"):
            fill = 326 if name == "input_ids" else 0
            parts = [torch.nn.functional.pad(part, (length - part.shape[1], 0), value=fill) for part in parts]
        joined[name] = torch.cat(parts)
    together = answers(model, joined)
    for sample, one in enumerate(mix):
        assert together[sample].tolist() == answers(model, one)[0].tolist()


def test_streamer(model, processor, capsys):
    inputs = single_inputs(processor)[1]
    answer = answers(model, inputs, streamer=TextStreamer(processor.tokenizer, skip_prompt=True))
    assert capsys.readouterr().out.strip() == processor.decode(answer[0]).strip()


@pytest.mark.slow
def test_compiled_decoding_equals_the_plain_path(model, processor):
    inputs = single_inputs(processor)[1]
    expected = answers(model, inputs, max_new_tokens=4)
    compiled = torch.compile(model.forward, dynamic=True)
    original, model.forward = model.forward, compiled
    try:
        assert answers(model, inputs, max_new_tokens=4).tolist() == expected.tolist()
    finally:
        model.forward = original


def test_a_decoding_step_compiles_as_one_graph(model, processor):
    # The "eager" backend traces like any other and leaves out code generation.
    inputs = single_inputs(processor)[1]
    expected = answers(model, inputs, cache_implementation="static", disable_compile=True)
    original, steps = model.forward, []
    compiled = torch.compile(original, fullgraph=True, backend="eager")

    def forward(*args, **kwargs):
        if kwargs["input_ids"].shape[1] > 1:
            return original(*args, **kwargs)
        steps.append(1)
        return compiled(*args, **kwargs)

    forward.__signature__ = inspect.signature(original)
    model.forward = forward
    try:
        found = answers(model, inputs, cache_implementation="static", disable_compile=True)
    finally:
        model.forward = original
    assert found.tolist() == expected.tolist()
    assert len(steps) == GREEDY["max_new_tokens"] - 1
