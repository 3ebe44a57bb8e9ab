"""Cells of the ablations, and how one of them is trained and measured on cached features of the frozen tower."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ablation_clips import FORMS, FeatureSet, TrainingClip
from transformers import AutoModelForImageTextToText

import transformers_videorefer
from transformers_videorefer import VideoReferForConditionalGeneration, VideoReferProcessor
from transformers_videorefer.data.synthetic.questions import DESCRIPTION, KINDS
from transformers_videorefer.data.synthetic.world import NUM_FRAMES


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from tiny_clips import FRAME_INDICES, NUM_SCENE_FRAMES, object_targets  # noqa: E402
from tiny_items import TextItem, text_items  # noqa: E402
from tiny_language import LanguageTrainer, RegionLayout, standardise_projector  # noqa: E402
from tiny_parts import Optimizers, build_model  # noqa: E402


CHECKPOINT = Path(transformers_videorefer.__file__).parent / "assets" / "videorefer-tiny"
SHORT, QA, DETAILED = "short captions", "questions", "detailed descriptions"
DATA_KINDS = (SHORT, QA, DETAILED)
# What the figures are given by: the short caption, the kinds of VideoRefer-Bench-Q, the description.
GROUPS = (SHORT, *KINDS, DESCRIPTION)
QUESTIONS_PER_CLIP_AND_GROUP = 2
MIDDLE_FRAME = NUM_FRAMES // 2
BATCH_SIZE, QUESTIONS_PER_CLIP = 32, 4
NUM_STANDARDISED_CLIPS = 200
SCHEDULE = {"muon_lr": 0.015, "adam_lr": 1.5e-3, "hold": 0.45}


@dataclass(frozen=True)
class Cell:
    """One configuration that is trained; the defaults are the one that all ablations share.

    Args:
        form (`str`): "mask" or "box", what regions are given as in training and test.
        multi_frame (`bool`): Whether regions have all 24 frames. Else one: any in training, the middle one in the test.
        num_tokens (`int`): Most tokens of a region, u; 24 switches the merge off.
        data (`tuple[str, ...]`): Kinds of training data, of `DATA_KINDS`.
    """

    form: str = "mask"
    multi_frame: bool = True
    num_tokens: int = 4
    data: tuple[str, ...] = DATA_KINDS


def data_kind(item: TextItem) -> str:
    """Name the kind of training data that a question belongs to."""
    if item.question.kind == DESCRIPTION:
        return DETAILED
    return SHORT if item.question.topic == "what" else QA


def test_items(clips: list[TrainingClip], processor: VideoReferProcessor) -> list[list[TextItem]]:
    """Draw the test questions of clips: up to two of each group.

    Args:
        clips (`list[TrainingClip]`): The clips.
        processor ([`VideoReferProcessor`]): Its template and tokenizer are used.

    Returns:
        `list[list[TextItem]]`: The questions of each clip; their `group` is one of `GROUPS`.
    """
    drawn = []
    for clip, items in zip(clips, text_items(clips, processor), strict=True):
        rng = np.random.default_rng([clip.scene.seed, 6])
        by_group: dict[str, list[TextItem]] = {}
        for position in rng.permutation(len(items)):
            item = items[position]
            group = SHORT if data_kind(item) == SHORT else item.question.kind
            by_group.setdefault(group, []).append(replace(item, group=group))
        drawn.append([item for found in by_group.values() for item in found[:QUESTIONS_PER_CLIP_AND_GROUP]])
    return drawn


class CellTrainer(LanguageTrainer):
    """Trains and measures one cell: the trainer of the miniature with regions of all frames of a clip.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model, with a frozen tower.
        processor ([`VideoReferProcessor`]): Its processor.
        rng (`np.random.Generator`): Draws clips, questions and single frames.
        cell ([`Cell`]): What the regions are made of.
    """

    def __init__(
        self,
        model: VideoReferForConditionalGeneration,
        processor: VideoReferProcessor,
        rng: np.random.Generator,
        cell: Cell,
    ):
        super().__init__(model, processor, rng)
        self.cell = cell
        # The cache holds the frames of the regions, the scene is made of some of them.
        model.model.connector.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, FRAME_INDICES],))

    def draw(self, items: list[list[TextItem]], num_clips: int, num_questions: int) -> list[TextItem]:
        """Draw at most `num_questions` questions of a clip until there are `num_clips * num_questions`."""
        drawn: list[TextItem] = []
        while (missing := num_clips * num_questions - len(drawn)) > 0:
            candidates = items[self.rng.integers(len(items))]
            weights = np.array([item.weight for item in candidates])
            count = min(num_questions, missing, len(candidates))
            chosen = self.rng.choice(len(candidates), size=count, replace=False, p=weights / weights.sum())
            drawn += [candidates[position] for position in chosen]
        return drawn

    def _choose_frames(self, item: TextItem, *, training: bool) -> list[int]:
        """Choose the frames of the regions of a question."""
        if not training:
            return list(range(NUM_FRAMES)) if self.cell.multi_frame else [MIDDLE_FRAME]
        if self.cell.multi_frame and self.rng.random() >= item.single_frame_share:
            return list(range(NUM_FRAMES))
        return [int(self.rng.integers(NUM_FRAMES))]

    def _lay_out(
        self, batch: list[TextItem], place_of_row: dict[int, int], clips: list[TrainingClip], *, training: bool
    ) -> RegionLayout:
        """Lay out the regions of a batch in the form, with the frames and the token count of the cell."""
        form = FORMS.index(self.cell.form)
        frames_of_item = [self._choose_frames(item, training=training) for item in batch]
        regions = [
            (item, one, frames) for item, frames in zip(batch, frames_of_item, strict=True) for one in item.objects
        ]
        lengths = torch.tensor([len(frames) for _, _, frames in regions])
        marks = {self.model.config.region_token_id}
        ids = [
            np.repeat(item.ids, [min(len(frames), self.cell.num_tokens) if id_ in marks else 1 for id_ in item.ids])
            for item, frames in zip(batch, frames_of_item, strict=True)
        ]
        return RegionLayout(
            ids=[one.tolist() for one in ids],
            masks=torch.from_numpy(np.concatenate([clips[item.row].masks[form, one][f] for item, one, f in regions])),
            frame_index=torch.tensor(
                [place_of_row[item.row] * NUM_FRAMES + frame for item, _, frames in regions for frame in frames]
            ),
            lengths=lengths,
            num_tokens=lengths.clamp_max(self.cell.num_tokens),
            # `NUM_SCENE_FRAMES` says that a region is whole and gets the auxiliary losses: of a multi-frame cell only
            # those with all frames, of a single-frame cell all.
            regions=torch.tensor(
                [
                    (item.row, one, 1 if self.cell.multi_frame and len(frames) == 1 else NUM_SCENE_FRAMES)
                    for item, one, frames in regions
                ]
            ),
        )

    def train_cell(self, items: list[list[TextItem]], train_set: FeatureSet, num_steps: int) -> dict[str, float]:
        """Train on the kinds of data of the cell.

        Args:
            items (`list[list[TextItem]]`): All open questions of the training clips.
            train_set ([`FeatureSet`]): Training clips.
            num_steps (`int`): Steps.

        Returns:
            `dict`: `loss` (next token) and `motion` (share of motions told right at the supervised layer), running
            means at the end.
        """
        base = self.model.model
        items = [[item for item in of_clip if data_kind(item) in self.cell.data] for of_clip in items]
        items = [of_clip for of_clip in items if of_clip]
        trained = [base.connector, base.region_encoder, base.language_model]
        warmup = min(50, num_steps // 4 + 1)
        optimizers = Optimizers(trained, [self.heads], num_steps=num_steps, warmup=warmup, **SCHEDULE)
        targets = object_targets(train_set.clips)
        averages = {"loss": 0.0, "motion": 0.0}
        for step in range(num_steps):
            batch = self.draw(items, BATCH_SIZE // QUESTIONS_PER_CLIP, QUESTIONS_PER_CLIP)
            output = self.forward(batch, train_set.features, train_set.clips, training=True)
            loss, token_loss = self.loss(output, targets)
            optimizers.step(loss)
            share = max(0.02, 1 / (step + 1))
            for name, value in (("loss", token_loss), ("motion", self.motion_hits)):
                averages[name] += share * (value.item() - averages[name])
        return averages

    def measure(self, items: list[list[TextItem]], test_set: FeatureSet, cell: Cell) -> dict[str, float]:
        """Return the share of answers that are right to the last token, by group.

        Each token is the most probable one after the right ones before it, so a right answer is what greedy decoding
        gives.

        Args:
            items (`list[list[TextItem]]`): Questions of the clips, see `test_items`.
            test_set ([`FeatureSet`]): Held-out clips.
            cell ([`Cell`]): What the regions are made of.

        Returns:
            `dict`: Share for each of `GROUPS`.
        """
        own, self.cell = self.cell, cell
        try:
            return self.evaluate(items, test_set.features, test_set.clips)
        finally:
            self.cell = own


def make_start(
    processor: VideoReferProcessor, train_set: FeatureSet, seed: int, num_copy_steps: int
) -> dict[str, torch.Tensor]:
    """Make the weights that all cells of a seed start from.

    Random, with the tower of the shipped checkpoint. The first layer for regions is scaled to the features pooled from
    masks (also for the cell of the boxes), and the language model was trained for a while to repeat random tokens.
    Nothing here sees a question or an answer.

    Args:
        processor ([`VideoReferProcessor`]): The processor.
        train_set ([`FeatureSet`]): Training clips.
        seed (`int`): Seed of the weights and of the random tokens.
        num_copy_steps (`int`): Steps of repeating random tokens.

    Returns:
        `dict`: A state dict.
    """
    torch.manual_seed(seed)
    model = build_model(processor)
    shipped = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    model.model.vision_tower.load_state_dict(shipped.model.vision_tower.state_dict())
    clips = [replace(clip, masks=clip.masks[:, :, FRAME_INDICES]) for clip in train_set.clips[:NUM_STANDARDISED_CLIPS]]
    standardise_projector(model, train_set.features[: len(clips), FRAME_INDICES], clips)
    model.model.vision_tower.requires_grad_(False)
    trainer = LanguageTrainer(model, processor, np.random.default_rng([seed, 7]))
    trainer.learn_to_look_up([], num_copy_steps=num_copy_steps, num_letter_steps=0)
    return model.state_dict()
