"""What the miniature is taught beside its answers."""

import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_model
from training_rows import text_row

from transformers_videorefer.data.synthetic.clips import conversation_rows, make_clip
from transformers_videorefer.data.synthetic.world import COLORS, SHAPES
from transformers_videorefer.training import RegionStates


EXAMPLES = Path(__file__).parents[2] / "examples"
# Enough clips for every motion.
ROWS = [row for seed in range(12) for row in conversation_rows(make_clip(seed))]


@pytest.fixture(scope="module")
def supervision():
    sys.path.insert(0, str(EXAMPLES))
    try:
        import tiny_supervision
    finally:
        sys.path.remove(str(EXAMPLES))
    return tiny_supervision


def test_targets_agree_with_the_answers(supervision):
    loss = supervision.ObjectSupervision()
    counts = {"color": 0, "shape": 0, "motion": 0}
    for row in ROWS:
        question, answer = (message["content"] for message in row["messages"])
        targets = loss.targets(row)
        assert targets.shape == (len(row["regions"]), 10)
        first, last, shape, motion = (int(value) for value in targets[0, :4])
        if row["task"] == "basic" and "color" in question:
            assert first == last
            assert answer == f"It is {list(COLORS)[first]}."
            counts["color"] += 1
        elif row["task"] == "basic" and "shape" in question:
            assert answer == f"It is a {SHAPES[shape]}."
            counts["shape"] += 1
        elif row["task"] == "sequential":
            name, directions = supervision.MOTIONS[motion]
            words = {
                "still": "stays still",
                "grow": "grows",
                "shrink": "shrinks",
                "recolor": f"changes from {list(COLORS)[first]} to {list(COLORS)[last]}",
            }
            expected = words.get(name) or "moves " + ", then ".join(directions)
            assert answer == f"It {expected}."
            counts["motion"] += 1
        elif row["task"] == "relationship" and "left or right" in question:
            # x at the start of both objects.
            assert answer == f"It is {'left' if targets[0, 4] < targets[1, 4] else 'right'}."
    assert min(counts.values()) > 10


def test_other_rows_do_not_tell(supervision):
    assert supervision.ObjectSupervision().targets(text_row()) is None


def test_only_regions_on_several_frames_count(supervision):
    loss, model = supervision.ObjectSupervision(), tiny_model()
    torch.manual_seed(0)
    head = loss.build(model)
    targets = torch.cat([loss.targets(row) for row in ROWS[:3]])[:3]
    tokens = torch.randn(6, 48)
    states = RegionStates(tokens, torch.tensor([4, 1, 1]), torch.tensor([8, 1, 1]))
    alone = RegionStates(tokens[:4], torch.tensor([4]), torch.tensor([8]))
    torch.testing.assert_close(loss.loss(head, states, targets), loss.loss(head, alone, targets[:1]))
    single = RegionStates(tokens[4:], torch.tensor([1, 1]), torch.tensor([1, 1]))
    assert loss.loss(head, single, targets[:2]).item() == 0


def test_a_head_learns_to_tell(supervision):
    loss = supervision.ObjectSupervision()
    torch.manual_seed(0)
    head = loss.build(tiny_model())
    targets = loss.targets(ROWS[0])
    states = RegionStates(torch.randn(2, 48), torch.tensor([2]), torch.tensor([8]))
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05)
    values = []
    for _ in range(60):
        values.append(loss.loss(head, states, targets))
        optimizer.zero_grad()
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.05 * values[0]
