"""Second stage of the miniature: connector, region encoder and language model, on features of the frozen tower."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tiny_clips import IGNORED, MOTIONS, NUM_SCENE_FRAMES, ObjectTargets, TrainingClip, object_targets
from tiny_items import TextItem, prompt_frame
from tiny_parts import Optimizers, fast_math
from torch import nn
from tqdm import tqdm

from transformers_videorefer import VideoReferForConditionalGeneration, VideoReferProcessor
from transformers_videorefer.data.synthetic.questions import LETTERS
from transformers_videorefer.data.synthetic.world import COLORS, SHAPES


logger = logging.getLogger(__name__)

CHOICE_SHARE = 0.25
BOX_SHARE = 0.1
FEW_TOKENS, FEW_TOKENS_SHARE = 4, 0.12
# Share of text-only steps about letters and options, in the first part of the run.
DRILL_SHARE, DRILL_PART = 0.05, 0.5
DEEP_SUPERVISION_LAYER, DEEP_SUPERVISION_WEIGHT = 2, 0.3


def standardise_projector(
    model: VideoReferForConditionalGeneration, features: torch.Tensor, clips: list[TrainingClip]
) -> None:
    """Fold mean and deviation of the pooled features into the first layer of the region encoder.

    Args:
        model ([`VideoReferForConditionalGeneration`]): Changed in place.
        features (`torch.Tensor` of shape `(num_clips, 8, num_patches, vision_size)`): Patch features.
        clips (`list[TrainingClip]`): Their clips.
    """
    encoder = model.model.region_encoder
    masks = torch.from_numpy(np.stack([clip.masks[0] for clip in clips]))  # (clips, objects, frames, patches)
    present = masks.any(dim=-1)
    rows, _, columns = present.nonzero(as_tuple=True)
    pooled = encoder.spatial_token_extractor(
        features[: len(clips)].flatten(0, 1).float(), masks[present], rows * NUM_SCENE_FRAMES + columns
    )
    scale = 1 / pooled.std(dim=0).clamp_min(1e-4)
    with torch.no_grad():
        encoder.linear_1.weight.mul_(scale)
        encoder.linear_1.bias.sub_(encoder.linear_1.weight @ pooled.mean(dim=0))


@dataclass(frozen=True, eq=False)
class RegionLayout:
    """The regions of a batch.

    Args:
        ids (`list[list[int]]`): Token ids of each question, with one mark for each object token.
        masks (`torch.Tensor` of shape `(num_region_frames, num_patches)`): bool.
        frame_index (`torch.Tensor` of shape `(num_region_frames,)`): Row of each mask among the frames of the batch.
        lengths (`torch.Tensor` of shape `(num_regions,)`): Frames of each region.
        num_tokens (`torch.Tensor` of shape `(num_regions,)`): Tokens of each region.
        regions (`torch.Tensor` of shape `(num_regions, 3)`): Clip, object and number of frames.
    """

    ids: list[list[int]]
    masks: torch.Tensor
    frame_index: torch.Tensor
    lengths: torch.Tensor
    num_tokens: torch.Tensor
    regions: torch.Tensor


class LanguageTrainer:
    """Trains connector, region encoder and language model on cached features of the frozen tower.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model.
        processor ([`VideoReferProcessor`]): Its processor.
        rng (`np.random.Generator`): Draws clips, questions and what regions are made of.
    """

    def __init__(
        self,
        model: VideoReferForConditionalGeneration,
        processor: VideoReferProcessor,
        rng: np.random.Generator,
    ):
        self.model, self.processor, self.rng = model, processor, rng
        width = model.config.text_config.hidden_size
        self.before, self.after = prompt_frame(processor)
        self.motion_hits = self.drill_hits = torch.zeros(())
        self.head_sizes = [len(COLORS), len(COLORS), len(SHAPES), len(MOTIONS), 6]
        self.heads = nn.Linear(width, sum(self.head_sizes))

    def draw(self, items: list[list[TextItem]], num_clips: int, num_questions: int) -> list[TextItem]:
        """Draw questions of some clips, questions of one clip side by side."""
        drawn = []
        # All multiple choice or none: these prompts are twice as long, and padding costs as much as text.
        is_choice = self.rng.random() < CHOICE_SHARE
        for row in self.rng.integers(len(items), size=num_clips):
            candidates = [item for item in items[row] if (item.group == "choice") == is_choice]
            weights = np.array([item.weight for item in candidates])
            # The largest of u ** (1 / weight) are a weighted sample without replacement.
            keys = np.log(self.rng.random(len(weights))) / np.maximum(weights, 1e-9)
            drawn += [candidates[position] for position in np.argsort(keys)[-num_questions:]]
        return drawn

    def forward(
        self, batch: list[TextItem], features: torch.Tensor, clips: list[TrainingClip], *, training: bool
    ) -> dict[str, torch.Tensor]:
        """Run the model over a batch.

        Args:
            batch (`list[TextItem]`): Questions.
            features (`torch.Tensor` of shape `(num_clips, 8, num_patches, vision_size)`): Cached features.
            clips (`list[TrainingClip]`): Their clips.
            training (`bool`): Whether some regions are single frames or boxes.

        Returns:
            `dict`: `logits` and `labels` of all answer tokens, `item` the question of each, `hidden` the hidden state
            of each region at the supervised layer, `regions` its (row, object, number of frames).
        """
        base, config = self.model.model, self.model.config
        rows = sorted({item.row for item in batch})
        place_of_row = {row: place for place, row in enumerate(rows)}
        patches = features[rows].float()  # (clips, 8, patches, vision_size)
        with fast_math():
            scene = base.connector(patches).float()
        layout = self._lay_out(batch, place_of_row, clips, training=training)
        ids, num_tokens = layout.ids, layout.num_tokens
        tokens, _ = base.region_encoder(
            patches.flatten(0, 1), layout.masks, layout.frame_index, layout.lengths, num_tokens
        )
        longest = max(map(len, ids))
        pad = self.processor.tokenizer.pad_token_id
        input_ids = torch.tensor([one + [pad] * (longest - len(one)) for one in ids])
        is_region = input_ids == config.region_token_id
        embeds = base.get_input_embeddings()(input_ids)
        embeds = embeds.masked_scatter(is_region.unsqueeze(-1), tokens)
        scene = scene[[place_of_row[item.row] for item in batch]]
        embeds = embeds.masked_scatter((input_ids == config.video_token_id).unsqueeze(-1), scene)
        with fast_math():
            output = base.language_model(inputs_embeds=embeds, output_hidden_states=True, use_cache=False)
        lengths_of_items = torch.tensor([len(one) for one in ids])
        num_answer = torch.tensor([item.num_answer for item in batch])
        position = torch.arange(longest)
        is_answer = (position < lengths_of_items[:, None]) & (position >= (lengths_of_items - num_answer)[:, None])
        hidden = output.last_hidden_state[:, :-1][is_answer[:, 1:]]
        # The last token of each region has seen all of it.
        ends = is_region.flatten().nonzero()[:, 0][num_tokens.cumsum(0) - 1]
        supervised = output.hidden_states[DEEP_SUPERVISION_LAYER]
        # The bracket before the letter: the answer has to be known there.
        concepts = base.language_model.norm(supervised[torch.arange(len(ids)), lengths_of_items - num_answer])
        return {
            "concept_logits": self.model.lm_head(concepts).float(),
            "concepts": torch.tensor([item.concept for item in batch]),
            "logits": self.model.lm_head(hidden),
            "labels": input_ids[is_answer],
            "item": torch.repeat_interleave(num_answer),
            "hidden": supervised.flatten(0, 1)[ends].float(),
            "regions": layout.regions,
        }

    def _lay_out(
        self, batch: list[TextItem], place_of_row: dict[int, int], clips: list[TrainingClip], *, training: bool
    ) -> RegionLayout:
        """Choose frames, mask form and token count of the regions of a batch, and write their marks out."""
        region_token_id = self.model.config.region_token_id
        most_tokens = self.model.config.num_region_tokens
        if training and self.rng.random() < FEW_TOKENS_SHARE:
            most_tokens = FEW_TOKENS
        masks, frame_index, lengths, regions, ids = [], [], [], [], []
        for item in batch:
            is_single = training and self.rng.random() < item.single_frame_share
            form = int(training and self.rng.random() < BOX_SHARE)
            frames = [int(self.rng.integers(NUM_SCENE_FRAMES))] if is_single else list(range(NUM_SCENE_FRAMES))
            expanded: list[int] = []
            for token in item.ids:
                expanded.extend([token] * (min(len(frames), most_tokens) if token == region_token_id else 1))
            ids.append(expanded)
            for one in item.objects:
                masks.append(clips[item.row].masks[form, one, frames])
                frame_index += [place_of_row[item.row] * NUM_SCENE_FRAMES + frame for frame in frames]
                lengths.append(len(frames))
                regions.append((item.row, one, len(frames)))
        return RegionLayout(
            ids=ids,
            masks=torch.from_numpy(np.concatenate(masks)),
            frame_index=torch.tensor(frame_index),
            lengths=torch.tensor(lengths),
            num_tokens=torch.tensor(lengths).clamp_max(most_tokens),
            regions=torch.tensor(regions),
        )

    def copy_loss(self, num_sequences: int) -> torch.Tensor:
        """Compute the loss of repeating random tokens: where did this token stand before, and what came next?"""
        model, length = self.model, int(self.rng.integers(8, 25))
        once = torch.from_numpy(self.rng.integers(model.config.text_config.vocab_size, size=(num_sequences, length)))
        embeds = model.model.get_input_embeddings()(once.repeat(1, 2))
        with fast_math():
            hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, length:-1]).flatten(0, 1)
        self.drill_hits = (logits.argmax(-1) == once[:, 1:].flatten()).float().mean()
        return F.cross_entropy(logits.float(), once[:, 1:].flatten())

    def drill_loss(self, items: list[list[TextItem]], num_questions: int) -> torch.Tensor:
        """Compute the loss of naming the letter of every option of multiple-choice questions, without any clip."""
        tokenizer = self.processor.tokenizer
        letters = torch.tensor([tokenizer.convert_tokens_to_ids(letter) for letter in LETTERS])
        texts, num_prompt = [], []
        while len(texts) < num_questions:
            question = items[self.rng.integers(len(items))][-1 - self.rng.integers(12)].question
            if len(question.options) < len(LETTERS):
                continue
            prompt = f"{self.before}{question.prompt[question.prompt.index('(A)') :]}{self.after}"
            order = self.rng.permutation(len(LETTERS))
            texts.append(prompt + "".join(f" {question.options[place]} ({LETTERS[place]})" for place in order))
            num_prompt.append(len(tokenizer(prompt)["input_ids"]))
        encoded = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
        with fast_math():
            hidden = self.model.model.language_model(
                inputs_embeds=self.model.model.get_input_embeddings()(encoded), use_cache=False
            ).last_hidden_state
        is_label = torch.isin(encoded, letters) & (torch.arange(encoded.shape[1]) >= torch.tensor(num_prompt)[:, None])
        logits = self.model.lm_head(hidden[:, :-1][is_label[:, 1:]])
        self.drill_hits = (logits.argmax(-1) == encoded[is_label]).float().mean()
        return F.cross_entropy(logits, encoded[is_label])

    def learn_to_look_up(self, items: list[list[TextItem]], *, num_copy_steps: int, num_letter_steps: int) -> None:
        """Teach the language model, before it sees a clip, to find things in its prompt (see the two losses).

        Choosing among options needs this skill. It is not enough: answers by letter stay at chance (see the model card).
        """
        num_steps = num_copy_steps + num_letter_steps
        optimizers = Optimizers(
            [self.model.model.language_model],
            [],
            muon_lr=0.015,
            adam_lr=1.5e-3,
            num_steps=num_steps,
            warmup=min(50, num_steps // 4 + 1),
            hold=0.9,
        )
        progress = tqdm(range(num_steps), desc="looking up", unit="step", mininterval=10)
        for step in progress:
            optimizers.step(self.copy_loss(48) if step < num_copy_steps else self.drill_loss(items, 32))
            if step % 20 == 19 or step == num_steps - 1:
                progress.set_postfix_str(f"right {self.drill_hits:.0%}")
        logger.info("looking up: %.1f %% right", 100 * self.drill_hits)

    def loss(self, output: dict[str, torch.Tensor], targets: ObjectTargets) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute next-token loss plus deep supervision, and the next-token loss alone."""
        token_loss = F.cross_entropy(output["logits"], output["labels"])
        row, one, num_frames = output["regions"].unbind(1)
        full = num_frames == NUM_SCENE_FRAMES
        row, one = row[full], one[full]
        first, last, shape, motion, places = self.heads(output["hidden"][full]).split(self.head_sizes, dim=-1)
        deep_loss = (
            F.cross_entropy(first, targets.colors[row, one, 0])
            + F.cross_entropy(last, targets.colors[row, one, -1])
            + F.cross_entropy(shape, targets.shapes[row, one])
            + F.cross_entropy(motion, targets.motions[row, one])
            + 5 * F.smooth_l1_loss(places, targets.places[row, one][:, [0, -1]].flatten(1), beta=0.1)
        )
        if (output["concepts"] != IGNORED).any():
            deep_loss = deep_loss + F.cross_entropy(output["concept_logits"], output["concepts"], ignore_index=IGNORED)
        self.motion_hits = (motion.argmax(-1) == targets.motions[row, one]).float().mean()
        return token_loss + DEEP_SUPERVISION_WEIGHT * deep_loss, token_loss.detach()

    @torch.no_grad()
    def evaluate(
        self, items: list[list[TextItem]], features: torch.Tensor, clips: list[TrainingClip]
    ) -> dict[str, float]:
        """Return the share of answers whose every token is the most probable one, by kind."""
        hits: dict[str, list[bool]] = defaultdict(list)
        flat = sorted((item for of_clip in items for item in of_clip), key=lambda item: len(item.ids))
        for start in range(0, len(flat), 64):
            batch = flat[start : start + 64]
            output = self.forward(batch, features, clips, training=False)
            wrong = output["logits"].argmax(-1) != output["labels"]
            num_wrong = torch.zeros(len(batch)).index_add(0, output["item"], wrong.float())
            for item, count in zip(batch, num_wrong.tolist(), strict=True):
                hits[item.group].append(count == 0)
        return {group: float(np.mean(values)) for group, values in sorted(hits.items())}

    def train(
        self,
        items: list[list[TextItem]],
        features: torch.Tensor,
        clips: list[TrainingClip],
        validation: tuple[list[list[TextItem]], torch.Tensor, list[TrainingClip]],
        *,
        num_steps: int,
        clips_per_step: int,
        questions_per_clip: int,
        report_every: int,
        on_report: Callable[[int], None],
    ) -> None:
        """Train for `num_steps` steps."""
        base = self.model.model
        optimizers = Optimizers(
            [base.connector, base.region_encoder, base.language_model],
            [self.heads],
            muon_lr=0.015,
            adam_lr=1.5e-3,
            num_steps=num_steps,
            warmup=min(100, num_steps // 4 + 1),
            hold=0.45,
        )
        targets, started = object_targets(clips), time.monotonic()
        progress = tqdm(range(1, num_steps + 1), desc="language model", unit="step", mininterval=10)
        average, motion_average = None, 0.0
        for step in progress:
            if step < DRILL_PART * num_steps and self.rng.random() < DRILL_SHARE:
                optimizers.step(self.drill_loss(items, clips_per_step * questions_per_clip))
            else:
                batch = self.draw(items, clips_per_step, questions_per_clip)
                loss, token_loss = self.loss(self.forward(batch, features, clips, training=True), targets)
                optimizers.step(loss)
                average = token_loss.item() if average is None else 0.98 * average + 0.02 * token_loss.item()
                motion_average = 0.98 * motion_average + 0.02 * self.motion_hits.item()
            if step % 50 == 0:
                progress.set_postfix_str(
                    f"loss {average or 0:.3f}, motion {motion_average:.0%}, letters {self.drill_hits:.0%}"
                )
            if step % report_every == 0 or step == num_steps:
                scores = self.evaluate(*validation)
                logger.info(
                    "step %d, %.0f s, loss %.3f, motion %.1f %%: %s",
                    step,
                    time.monotonic() - started,
                    average or 0,
                    100 * motion_average,
                    ", ".join(f"{name} {score:.1%}" for name, score in scores.items()),
                )
                on_report(step)
