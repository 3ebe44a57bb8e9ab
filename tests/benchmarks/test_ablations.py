"""The ablation benchmark: its clips, its cells, what it keeps, and one cell trained for a few steps."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_videorefer.data.synthetic.clips import make_clip, object_region, write_clip
from transformers_videorefer.data.synthetic.world import render


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import ablation_clips  # noqa: E402
import ablation_report  # noqa: E402
import ablation_training  # noqa: E402
import ablations  # noqa: E402


NAMES = list(ablations.CELLS)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> ablations.Workbench:
    """A workbench of four training clips and two held-out clips of each world."""
    plan = replace(ablations.QUICK, num_train_clips=2)
    return ablations.Workbench.open(plan, tmp_path_factory.mktemp("cache"), num_workers=0)


def make_trainer(bench: ablations.Workbench, cell: ablation_training.Cell) -> ablation_training.CellTrainer:
    model = ablations.build_model(bench.processor)
    return ablation_training.CellTrainer(model, bench.processor, np.random.default_rng(0), cell)


def test_overlapping_objects_cover_each_other_and_stay_recognisable():
    scene = ablation_clips.overlapping_scene(7)
    assert scene == ablation_clips.overlapping_scene(7)
    _, masks = render(scene)
    alone = np.concatenate([render(replace(scene, objects=(one,)))[1] for one in scene.objects])
    shares = masks.sum(axis=(2, 3)) / alone.sum(axis=(2, 3))
    np.testing.assert_allclose(shares, ablation_clips.visible_shares(scene, masks))
    assert shares.min() >= 0.35
    # In at least ten frames one of the two lacks more than 15 % of itself.
    assert (shares < 0.85).any(axis=0).sum() >= 10


def test_clips_have_masks_and_boxes_of_all_frames():
    clip = ablation_clips.make_clip_of_all_frames("overlapping", 7)
    num_objects = len(clip.scene.objects)
    assert clip.frames.shape == (24, 64, 64, 3)
    assert clip.masks.shape == (2, 3, 24, 64)
    masks, boxes = clip.masks[:, :num_objects]
    assert masks.any(axis=-1).all()
    assert not (masks & ~boxes).any()
    # A box is a filled rectangle of cells, so it holds the other object's cells too.
    cells = boxes.reshape(num_objects, 24, 8, 8)
    areas = cells.any(axis=3).sum(axis=2) * cells.any(axis=2).sum(axis=2)
    np.testing.assert_array_equal(cells.sum(axis=(2, 3)), areas)
    assert (masks[0] & masks[1]).sum() < (boxes[0] & boxes[1]).sum()
    assert not any(question.options for question in clip.questions)


def test_sets_share_no_clip(bench):
    seeds = [clip.scene.seed for one in (bench.train_set, *bench.test_sets.values()) for clip in one.clips]
    assert len(set(seeds)) == len(seeds) == 8
    assert min(seeds) >= 100_000_000  # the splits of the package start at 0, 10 and 20 millions


def test_features_are_read_again_from_the_cache(bench):
    again = ablations.load_features(None, "train", ablation_clips.WORLDS, 2, cache=bench.cache, num_workers=0)
    torch.testing.assert_close(again.features, bench.train_set.features, rtol=0, atol=0)
    assert again.features.dtype == torch.float16
    assert again.features.shape == (4, 24, 64, 128)
    assert [clip.scene for clip in again.clips] == [clip.scene for clip in bench.train_set.clips]


@pytest.mark.parametrize(
    ("name", "num_frames", "num_tokens"),
    [("default", 24, 4), ("box", 24, 4), ("single frame", 1, 1), ("u=1", 24, 1), ("no merge", 24, 24)],
)
def test_cells_differ_in_what_regions_are_made_of(bench, name, num_frames, num_tokens):
    cell = ablations.CELLS[name]
    item = bench.items_of_test["ordinary"][0][0]
    layout = make_trainer(bench, cell)._lay_out([item], {0: 0}, bench.test_sets["ordinary"].clips, training=False)
    assert layout.lengths.tolist() == [num_frames] * len(item.objects)
    assert layout.num_tokens.tolist() == [num_tokens] * len(item.objects)
    assert layout.ids[0].count(bench.processor.region_token_id) == num_tokens * len(item.objects)
    masks = bench.test_sets["ordinary"].clips[0].masks[int(cell.form == "box"), item.objects[0]]
    expected = masks if num_frames == 24 else masks[12:13]
    np.testing.assert_array_equal(layout.masks[:num_frames], expected)


def test_data_kinds_part_the_questions(bench):
    topics = {kind: set() for kind in ablation_training.DATA_KINDS}
    for of_clip in bench.train_items:
        for item in of_clip:
            topics[ablation_training.data_kind(item)].add(item.question.topic)
    assert topics[ablation_training.SHORT] == {"what"}
    assert topics[ablation_training.DETAILED] == {"describe"}
    assert {"color", "motion", "next"} <= topics[ablation_training.QA]


def test_a_cell_is_trained_and_measured(bench):
    run = bench.run("default", 0)
    assert set(run["scores"]) == {"own", "single frame at test", "box at test"}
    for worlds in run["scores"].values():
        assert set(worlds) == {"ordinary", "overlapping"}
        assert all(0 <= score <= 1 for groups in worlds.values() for score in groups.values())
    assert run["end_of_training"]["loss"] > 0


def test_training_leaves_the_tower_alone(bench):
    trainer = make_trainer(bench, ablations.CELLS["u=1"])
    trainer.model.load_state_dict(bench.start(0))
    trainer.model.model.vision_tower.requires_grad_(False)
    before = {name: value.clone() for name, value in trainer.model.model.state_dict().items()}
    trainer.train_cell(bench.train_items, bench.train_set, 1)
    after = trainer.model.model.state_dict()
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"connector", "region_encoder", "language_model"}


def test_right_means_what_generate_says_about_the_file(bench, tmp_path):
    """The shipped model, asked through processor and `generate` with 24 annotated frames, merged to 4 tokens."""
    seed = bench.test_sets["ordinary"].clips[0].scene.seed
    clip = make_clip(seed)
    video, regions = write_clip(clip, tmp_path), [object_region(clip, index) for index in range(len(clip.masks))]
    processor = AutoProcessor.from_pretrained(ablations.CHECKPOINT, num_region_frames=24, num_region_tokens=4)
    model = AutoModelForImageTextToText.from_pretrained(ablations.CHECKPOINT).eval()
    items = [item for item in bench.items_of_test["ordinary"][0] if len(item.objects) == 1]
    conversations = []
    for item in items:
        before, after = item.question.prompt.split("<region>")
        parts = [{"type": "video", "path": str(video)}, {"type": "text", "text": f"\n{before}"}]
        parts += [{"type": "region", **regions[item.objects[0]]}, {"type": "text", "text": after}]
        conversations.append([{"role": "user", "content": parts}])
    inputs = processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    answers = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    said_right = [float(answer == item.question.reply) for answer, item in zip(answers, items, strict=True)]
    model.set_attn_implementation("eager")
    trainer = ablation_training.CellTrainer(model, processor, np.random.default_rng(0), ablations.CELLS["default"])
    test_set = bench.test_sets["ordinary"]
    measured = [trainer.measure([[item]], test_set, ablations.CELLS["default"])[item.group] for item in items]
    assert measured == said_right
    assert 0 < sum(measured) <= len(items)


def make_run(cell: str, seed: int, score: float, tests: tuple[str, ...] = ("own",)) -> dict:
    scores = dict.fromkeys(ablation_training.GROUPS, score)
    return {
        "cell": cell,
        "seed": seed,
        "scores": {test: dict.fromkeys(ablation_clips.WORLDS, scores) for test in tests},
    }


def test_finished_cells_are_skipped(tmp_path):
    path = tmp_path / "new" / "result.json"
    result = ablations.read_result(path, ablations.QUICK)
    assert len(ablations.missing_runs(result, 3)) == 3 * len(NAMES)
    tests = ("own", *ablations.OTHER_TESTS["default"])
    result["runs"] += [make_run("box", 1, 0.5), make_run("default", 0, 0.25, tests)]
    ablations.write_result(path, result)
    again = ablations.read_result(path, ablations.QUICK)
    assert [(run["cell"], run["seed"]) for run in again["runs"]] == [("default", 0), ("box", 1)]
    left = ablations.missing_runs(again, 2)
    assert left == [(name, 0) for name in NAMES[1:]] + [(name, 1) for name in NAMES if name != "box"]
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]


def test_figures_of_other_settings_are_not_mixed(tmp_path):
    path = tmp_path / "result.json"
    ablations.write_result(path, ablations.read_result(path, ablations.QUICK))
    with pytest.raises(ValueError, match=r"other settings \(num_steps\)"):
        ablations.read_result(path, replace(ablations.QUICK, num_steps=4))


def test_the_summary_gives_mean_and_spread_over_seeds():
    tests = ("own", *ablations.OTHER_TESTS["default"])
    runs = [make_run("default", seed, score, tests) for seed, score in enumerate((0.5, 0.6, 0.7))]
    runs += [make_run("u=1", seed, score) for seed, score in enumerate((0.4, 0.45, 0.65))]
    runs[0]["scores"]["own"] = {
        "ordinary": {**runs[0]["scores"]["own"]["ordinary"], "basic": 1.0},
        "overlapping": {**runs[0]["scores"]["own"]["ordinary"], "basic": 0.0},
    }
    other, first = ablation_report.summarise(runs)["merge"]["rows"]
    assert (other["row"], first["row"]) == ("u = 1", "u = 4")
    assert first["score"]["sequential"] == {"mean": 60.0, "deviation": 10.0}
    assert first["score"]["basic"] == {"mean": 60.0, "deviation": 10.0}  # 50, the mean of both worlds, 60 and 70
    assert other["score"]["questions"] == {"mean": 50.0, "deviation": 13.23}  # of 40, 45 and 65
    assert other["minus_reference"]["sequential"] == {"mean": -10.0, "deviation": 5.0}  # of -10, -15 and -5
    assert other["paper"] == {"TD": 3.08, "HD": 2.98, "SQ": 68.9, "RQ": 60.9}


def test_the_committed_figures_hold_every_cell_and_what_the_tables_say():
    result = json.loads(ablations.RESULTS.read_text())
    assert ablations.missing_runs(result, 3) == []
    assert result["summary"] == ablation_report.summarise(result["runs"])
    tables = ablations.RESULTS.with_suffix(".md").read_text()
    assert tables.endswith(ablation_report.markdown_tables(result["summary"]))
    assert ablations.RESULTS.with_suffix(".png").stat().st_size > 10_000
    assert result["settings"]["annotated_frames_per_clip"] >= 24
