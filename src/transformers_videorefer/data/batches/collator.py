"""Rows to batches for training and generation; videos are decoded wherever the collator is called."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from transformers_videorefer.data.rows.region_parts import draw_frames, frame_keys, keep_frame
from transformers_videorefer.regions.errors import MediaError, located, place_error
from transformers_videorefer.regions.selection import check_empty_masks
from transformers_videorefer.regions.values import DEFAULT, Default, parse_region_frames

from .chat import MEDIA_KINDS, map_regions, name_of, parts_of, to_chat
from .guilty_rows import find_guilty_row


IGNORED_LABEL = -100
# What the processor raises for a row.
_ROW_ERRORS = (ValueError, TypeError, OSError)


class VideoReferDataCollator:
    """Makes a batch of rows of any of our sets, or of sets with `messages`, `images` and `videos` as TRL has them.

    Give it to a `DataLoader` or a trainer as it is: videos are decoded in the loader's workers, and a video that
    several rows of a batch share is decoded once.

    With `multi_frame_ratio` the paper's two modes are mixed (section 4.1): that share of the rows with a video keeps
    all annotated frames, the others keep one frame of each region: the row's own `frame_index` where it has one (as
    the benchmarks do), otherwise a random one that shows all its regions, or one for each region if there is none.
    What a row gets depends on `seed`, epoch and its id alone, so it is the same in every worker, on every rank and in
    any order.

    Args:
        processor ([`VideoReferProcessor`]): The processor.
        data_root (`str` or `os.PathLike`, *optional*): Folder that paths in rows are relative to; a row's own
            `data_root` goes before it.
        multi_frame_ratio (`float`, *optional*): Share of rows with a video, from 0 to 1, that keep all annotated frames.
            None keeps them in every row.
        generate (`bool`, *optional*, defaults to `False`): Make prompts for `model.generate`, padded on the left,
            without labels and without the last answer of a conversation, in place of training batches.
        num_frames (`int`, *optional*): Scene frames per video; the processor's by default.
        num_region_frames (`int`, `str` or `None`, *optional*): Most frames used of a region, `None` or `"all"` for all; the
            processor's by default.
        num_region_tokens (`int`, *optional*): Most tokens of a region; the processor's by default.
        empty_masks (`str`, *optional*, defaults to `"drop"`): What to do with empty masks: `"error"`, `"drop"`, or
            `"keep"` (the published behaviour). A region without any other mask is an error unless `"keep"`.
        seed (`int`, *optional*, defaults to `0`): Seed of the choice of frames.

    Raises:
        ValueError: If `multi_frame_ratio` lies outside 0 to 1, or `empty_masks` is unknown.
        TypeError: If `multi_frame_ratio` is no number.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        data_root: str | os.PathLike | None = None,
        multi_frame_ratio: float | None = None,
        generate: bool = False,
        *,
        num_frames: int | None = None,
        num_region_frames: int | str | Default | None = DEFAULT,
        num_region_tokens: int | None = None,
        empty_masks: str = "drop",
        seed: int = 0,
    ):
        if multi_frame_ratio is not None:
            if isinstance(multi_frame_ratio, bool) or not isinstance(multi_frame_ratio, (int, float)):
                raise TypeError(f"`multi_frame_ratio` must be a number or None, got {multi_frame_ratio!r}.")
            if not 0 <= multi_frame_ratio <= 1:
                raise ValueError(
                    f"`multi_frame_ratio` is {multi_frame_ratio}. Pass a share from 0 to 1, or None for all frames."
                )
        check_empty_masks(empty_masks)
        self.processor = processor
        self.data_root = data_root
        self.multi_frame_ratio = multi_frame_ratio
        self.generate = generate
        self.seed = seed
        parse_region_frames(num_region_frames)
        self._options: dict[str, Any] = {"empty_masks": empty_masks, "num_region_frames": num_region_frames}
        for name, value in (("num_frames", num_frames), ("num_region_tokens", num_region_tokens)):
            if value is not None:
                self._options[name] = value
        # In shared memory, so that loader workers that live through several epochs see the new one.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """`int`: The epoch that frames are chosen for."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins; running loader workers hear of it too.

        Args:
            epoch (`int`): The epoch, counted from 0.
        """
        self._epoch.fill_(epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """Make a batch.

        Args:
            rows (`Sequence[Mapping]`): The rows.

        Returns:
            `BatchFeature`: What the processor returns and, unless `generate`, `labels` of shape
            `(batch, sequence)`: the ids of every answer with its end token and the newline behind it, -100 elsewhere.

        Raises:
            ValueError: If a row does not fit the model's inputs, or has no answer to learn from; a [`MediaError`], as
                the two below, which names the row, and whose `sample` is the position of the row in `rows`.
            TypeError: If something in a row is of a wrong kind.
            OSError: If a file cannot be read.
        """
        if not len(rows):
            raise ValueError("`rows` is empty. Pass at least one row.")
        conversations = []
        for position, row in enumerate(rows):
            with located(sample=position, num_rows=len(rows)):
                conversations.append(self.to_chat(row))
        try:
            inputs = self._process(conversations)
        except _ROW_ERRORS as error:
            placed = self._blame(rows, conversations, error)
            raise placed from placed.__cause__
        if self.generate:
            return inputs
        is_answer = torch.as_tensor(inputs.pop("assistant_masks")).bool()
        inputs["labels"] = self._labels(inputs["input_ids"], is_answer)
        for position, has_labels in enumerate((inputs["labels"] != IGNORED_LABEL).any(dim=1).tolist()):
            if not has_labels:
                raise MediaError(
                    "it has no answer to learn from. Leave it out of training, or use `generate=True` for prompts.",
                    origin=name_of(rows[position]),
                    sample=position,
                    num_rows=len(rows),
                )
        return inputs

    def to_chat(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Write one row as the messages that this collator would use for it in the current epoch.

        Args:
            row (`Mapping[str, Any]`): The row.

        Returns:
            `list[dict]`: Messages with payloads, see [`to_chat`].

        Raises:
            ValueError: As in [`to_chat`].
            TypeError: As in [`to_chat`].
        """
        is_single = self._is_single_frame(row)
        has_own_frame = is_single and row.get("frame_index") is not None
        data_root = row.get("data_root") or self.data_root  # rows of a mixture have roots of their own
        messages = to_chat(row, data_root, single_frame=has_own_frame)
        if is_single and not has_own_frame:
            with located(origin=name_of(row)):
                messages = self._draw_frames(row, messages)
        if self.generate and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        return messages

    def _is_single_frame(self, row: Mapping[str, Any]) -> bool:
        """Whether a row keeps one frame of each region. Regions on images have one frame anyway."""
        if self.multi_frame_ratio is None:
            return False
        return self._draw(row, "mode") >= self.multi_frame_ratio

    def _draw_frames(self, row: Mapping[str, Any], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Reduce the regions on each video to one frame."""
        kinds = [part["type"] for part in parts_of(messages, *MEDIA_KINDS)]
        regions = parts_of(messages, "region")
        of_video: dict[int, list[int]] = {}
        for number, region in enumerate(regions):
            media = int(region.get("media", 0))
            if media < len(kinds) and kinds[media] == "video" and len(frame_keys(region)) > 1:
                of_video.setdefault(media, []).append(number)
        for media, numbers in of_video.items():
            positions = draw_frames(
                [regions[number] for number in numbers], lambda name, media=media: self._draw(row, f"{media} {name}")
            )
            for number, position in zip(numbers, positions, strict=True):
                regions[number] = keep_frame(regions[number], position)
        return map_regions(messages, regions)

    def _draw(self, row: Mapping[str, Any], what: str) -> float:
        """Draw a number from 0 to below 1 for a row; rows without id are told apart by what they hold."""
        identity = row.get("id")
        if identity is None:
            identity = [row.get(key) for key in ("messages", "question", "video", "videos", "frame_index")]
        name = f"{self.seed}|{self.epoch}|{identity}|{what}"
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest()
        return int.from_bytes(digest) / 2**48

    def _process(self, conversations: list[list[dict[str, Any]]]) -> BatchFeature:
        """Run the processor once for all rows, so that every video is opened once."""
        return self.processor.apply_chat_template(
            conversations,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=self.generate,
            return_assistant_tokens_mask=not self.generate,
            padding_side="left" if self.generate else "right",
            **self._options,
        )

    def _labels(self, input_ids: torch.Tensor, is_answer: torch.Tensor) -> torch.Tensor:
        """Keep the ids of answers; placeholders have no rows in the language model's head."""
        processor = self.processor
        marks = [processor.video_token_id, processor.image_token_id, processor.region_token_id]
        is_kept = is_answer & ~torch.isin(input_ids, torch.tensor(marks))
        return input_ids.masked_fill(~is_kept, IGNORED_LABEL)

    def _blame(
        self, rows: Sequence[Mapping[str, Any]], conversations: list[list[dict[str, Any]]], error: Exception
    ) -> MediaError:
        """Name the row that the processor fails on, or all of them where each by itself is fine."""
        found = find_guilty_row(conversations, self._process, error, _ROW_ERRORS)
        if found is None:
            return place_error(error, origin=", ".join(map(name_of, rows)), sample=None)
        position, reason = found
        return place_error(reason, origin=name_of(rows[position]), sample=position, num_rows=len(rows))
