"""Losses beside the next token: small heads that tell something about each region from hidden states, while training."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from transformers_videorefer.models.videorefer.modeling_videorefer import VideoReferModel

from .batches import REGION_TARGETS, CollatorWrapper
from .guards import REPORT, row_name
from .stages import AUXILIARY_HEADS


@dataclass(frozen=True, eq=False)
class RegionStates:
    """What a layer of the language model holds at the object tokens of some regions.

    Args:
        tokens (`torch.FloatTensor` of shape `(sum(num_tokens), hidden_size)`): Hidden states, region after region.
        num_tokens (`torch.LongTensor` of shape `(num_regions,)`): Tokens of each region.
        lengths (`torch.LongTensor` of shape `(num_regions,)`): Frames of each region; 1 in single-frame mode.
    """

    tokens: torch.Tensor
    num_tokens: torch.Tensor
    lengths: torch.Tensor

    @property
    def last(self) -> torch.Tensor:
        """`torch.FloatTensor` of shape `(num_regions, hidden_size)`: At the last token of each, which saw them all."""
        return self.tokens[self.num_tokens.cumsum(0) - 1]

    def select(self, is_kept: torch.Tensor) -> "RegionStates":
        """Keep some of the regions.

        Args:
            is_kept (`torch.BoolTensor` of shape `(num_regions,)`): Which.

        Returns:
            [`RegionStates`].
        """
        tokens = self.tokens[is_kept.repeat_interleave(self.num_tokens)]
        return RegionStates(tokens, self.num_tokens[is_kept], self.lengths[is_kept])


class AuxiliaryLoss(ABC):
    """A loss on what a layer of the language model holds at object tokens.

    Subclasses say what the rows tell about their regions, make the head and compute the loss. The head learns with the
    model, in every process alike, and is part of checkpoints for resuming, but not of any saved model.

    Args:
        layer (`int`): After how many layers of the language model the hidden states are taken, counted from 1.
        weight (`float`, *optional*, defaults to 1.0): Factor of the loss.

    Raises:
        ValueError: If `layer` is below 1 or `weight` not above 0.
    """

    name: str
    """`str`: What the log calls it: `auxiliary/<name>`."""

    def __init__(self, layer: int, weight: float = 1.0):
        if layer < 1:
            raise ValueError(f"`layer` of an auxiliary loss is {layer}. Pass a number of layers, at least 1.")
        if weight <= 0:
            raise ValueError(f"`weight` of an auxiliary loss is {weight}. Pass a number above 0.")
        self.layer = layer
        self.weight = weight

    @abstractmethod
    def build(self, model: nn.Module) -> nn.Module:
        """Make the head.

        Args:
            model ([`VideoReferForConditionalGeneration`]): The model, for its sizes.

        Returns:
            `nn.Module`: The head.
        """

    @abstractmethod
    def targets(self, row: Mapping[str, Any]) -> torch.Tensor | None:
        """Say what the regions of a row are. Called in the loader's workers.

        Args:
            row (`Mapping[str, Any]`): The row.

        Returns:
            `torch.FloatTensor` of shape `(num_regions, num_targets)` or `None`: One line per region, in the order of
            their marks, without NaN; `None` if the row does not tell.
        """

    @abstractmethod
    def loss(self, head: nn.Module, states: RegionStates, targets: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            head (`nn.Module`): What `build` returned.
            states ([`RegionStates`]): Hidden states of the regions that have targets, one region at least.
            targets (`torch.FloatTensor` of shape `(num_regions, num_targets)`): Their targets.

        Returns:
            `torch.Tensor` of shape `()`: The mean over the regions. It must not be NaN where none of them counts.
        """


def load_auxiliary_loss(path: str, **options: Any) -> AuxiliaryLoss:
    """Make an auxiliary loss of a class that a configuration names.

    Args:
        path (`str`): `module:Class`; the module must be importable.
        options: Arguments of the class.

    Returns:
        [`AuxiliaryLoss`].

    Raises:
        ValueError: If `path` has another form or names no such class, or the class does not take the options.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"`path` of an auxiliary loss must read `module:Class`, got {path!r}.")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"The module of the auxiliary loss {path!r} cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, AuxiliaryLoss)):
        raise ValueError(f"{path!r} is no subclass of `AuxiliaryLoss`. Check `path` of the auxiliary loss.")
    try:
        return found(**options)
    except TypeError as error:
        raise ValueError(f"The auxiliary loss {path!r} does not take these options: {error}.") from error


class TargetCollator(CollatorWrapper):
    """Calls a collator and adds what auxiliary losses learn from.

    Args:
        collator (`Callable`): Makes a batch of rows, with a [`RowReport`] if it leaves some out.
        losses (`Sequence[AuxiliaryLoss]`): The losses.
    """

    def __init__(
        self,
        collator: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]],
        losses: Sequence[AuxiliaryLoss],
    ):
        super().__init__(collator)
        self.losses = list(losses)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows (`Sequence[Mapping]`): The rows.

        Returns:
            `dict[str, Any]`: What the collator makes of them and, under `region_targets`, for each loss that any row has
            targets of, a tensor with one line per region of the batch: NaN where the row does not tell.

        Raises:
            ValueError: If a row has not one line per region.
        """
        batch = dict(self.collator(rows))
        kept = _kept_rows(rows, batch[REPORT].kept) if REPORT in batch else list(rows)
        if not kept:
            return batch
        num_regions = batch["sample_counts"][:, 3].tolist()
        targets = {}
        for loss in self.losses:
            of_rows = [loss.targets(row) for row in kept]
            width = next((one.shape[1] for one in of_rows if one is not None), None)
            if width is None:
                continue
            for row, one, count in zip(kept, of_rows, num_regions, strict=True):
                if one is not None and tuple(one.shape) != (count, width):
                    raise ValueError(
                        f"Auxiliary loss `{loss.name}`: targets of row {row_name(row)} have shape {tuple(one.shape)}, "
                        f"expected {(count, width)}. Return one line per region, of equal width for all rows."
                    )
            unknown = [torch.full((count, width), torch.nan) for count in num_regions]
            targets[loss.name] = torch.cat(
                [blank if one is None else one.float() for one, blank in zip(of_rows, unknown, strict=True)]
            )
        return {**batch, REGION_TARGETS: targets} if any(map(len, targets.values())) else batch


def _kept_rows(rows: Sequence[Mapping[str, Any]], kept: Sequence[str]) -> list[Mapping[str, Any]]:
    """Find the rows that a report names, which keep their order."""
    remaining = iter(rows)
    return [next(row for row in remaining if row_name(row) == name) for name in kept]


def count_told(batch: Mapping[str, Any]) -> dict[str, int]:
    """Count the regions of a batch that have targets.

    Args:
        batch (`dict[str, Any]`): A batch.

    Returns:
        `dict[str, int]`: Their number for each auxiliary loss that has any.
    """
    return {name: int(_is_told(one).sum()) for name, one in batch.get(REGION_TARGETS, {}).items()}


def _is_told(targets: torch.Tensor) -> torch.Tensor:
    return ~targets.isnan().any(dim=1)


class AuxiliaryLosses:
    """Heads and hooks of auxiliary losses on a model.

    Args:
        model ([`VideoReferForConditionalGeneration`]): The model, not wrapped; it gets the heads as a module.
        losses (`Sequence[AuxiliaryLoss]`): The losses, of different names.

    Raises:
        ValueError: If two losses share a name, or a layer does not exist.
    """

    def __init__(self, model: nn.Module, losses: Sequence[AuxiliaryLoss]):
        self._losses = {loss.name: loss for loss in losses}
        if len(self._losses) < len(losses):
            raise ValueError(f"Auxiliary losses share a name: {', '.join(loss.name for loss in losses)}. Rename one.")
        layers = model.model.language_model.layers
        for loss in losses:
            if loss.layer > len(layers):
                raise ValueError(
                    f"Auxiliary loss `{loss.name}` wants layer {loss.layer} of a language model of {len(layers)}."
                )
        self.heads = nn.ModuleDict({loss.name: loss.build(model) for loss in losses})
        self.heads.to(device=model.device, dtype=torch.float32)
        model.add_module(AUXILIARY_HEADS, self.heads)
        model._keys_to_ignore_on_save = {
            *(model._keys_to_ignore_on_save or ()),
            *(f"{AUXILIARY_HEADS}.{key}" for key in self.heads.state_dict()),
        }
        self._region_token_id = model.config.region_token_id
        self._inputs: dict[str, Any] = {}
        self._states: dict[int, torch.Tensor] = {}
        self.values: dict[str, torch.Tensor] = {}
        """`dict[str, torch.Tensor]`: The losses of the last forward pass in training, without their weights."""
        self._num_told: dict[str, int] = {}
        for number in {loss.layer for loss in losses}:
            layers[number - 1].register_forward_hook(self._hold_states(number))
        base: VideoReferModel = model.model
        base.register_forward_pre_hook(self._hold_inputs, with_kwargs=True, prepend=True)
        base.register_forward_hook(self._compute)

    @property
    def names(self) -> list[str]:
        """`list[str]`: Names and weights, for the model card."""
        return [f"{name} {loss.weight:g}" for name, loss in self._losses.items()]

    def total(self, num_told: Mapping[str, int] | None = None) -> torch.Tensor:
        """Return the weighted sum of the last values.

        Args:
            num_told (`Mapping[str, int]`, *optional*): Regions with targets of each loss in the whole batch, where the
                last forward pass saw a part of it; means of parts then add up to the mean of the whole.

        Returns:
            `torch.Tensor` of shape `()`: The sum.
        """
        num_told = num_told or {}
        shares = {name: self._num_told.get(name, 0) / count for name, count in num_told.items() if count}
        return torch.stack(
            [self._losses[name].weight * shares.get(name, 1.0) * value for name, value in self.values.items()]
        ).sum()

    def _hold_states(self, number: int) -> Callable[..., None]:
        def hold(module: nn.Module, args: Any, output: Any) -> None:
            if self._inputs:
                self._states[number] = output[0] if isinstance(output, tuple) else output

        return hold

    def _hold_inputs(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Note what the losses need before other hooks change it, and take the targets away from the model."""
        kwargs = dict(kwargs)
        targets = kwargs.pop(REGION_TARGETS, None) or {}
        self.values = {}
        if module.training:
            names = ("input_ids", "region_lengths", "region_num_tokens")
            self._num_told = count_told({REGION_TARGETS: targets})
            self._inputs = {"targets": targets, **{name: kwargs.get(name) for name in names}}
        return args, kwargs

    def _compute(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Compute all losses, and tie them to the output."""
        if not self._inputs:
            return output
        inputs, states, self._inputs, self._states = self._inputs, self._states, {}, {}
        with torch.autocast(device_type=output.last_hidden_state.device.type, enabled=False):
            self.values = {name: self._one(loss, inputs, states[loss.layer]) for name, loss in self._losses.items()}
            # Wrappers that look for unused parameters follow the output only, and must find the heads there. The
            # factor of zero leaves the output as it is.
            output.last_hidden_state = output.last_hidden_state + 0.0 * self.total().to(output.last_hidden_state)
        return output

    def _one(self, loss: AuxiliaryLoss, inputs: Mapping[str, Any], states: torch.Tensor) -> torch.Tensor:
        head = self.heads[loss.name]
        # The head takes part in every batch, so that no process waits for its gradients.
        nothing = sum(0.0 * parameter.sum() for parameter in head.parameters()) + 0.0 * states.sum().float()
        targets = inputs["targets"].get(loss.name)
        if targets is None:
            return nothing
        is_known = _is_told(targets)
        if not bool(is_known.any()):
            return nothing
        if torch.is_grad_enabled() and not states.requires_grad:
            raise ValueError(
                f"Auxiliary loss `{loss.name}` teaches its head alone: nothing that learns lies before layer "
                f"{loss.layer}, or activations are checkpointed with `use_reentrant`. Change either, or leave it out."
            )
        # Mixed precision of DeepSpeed holds heads in half precision as well.
        dtype = next((parameter.dtype for parameter in head.parameters()), torch.float32)
        tokens = states[inputs["input_ids"] == self._region_token_id].to(dtype)
        regions = RegionStates(tokens, inputs["region_num_tokens"], inputs["region_lengths"])
        return loss.loss(head, regions.select(is_known), targets[is_known]) + nothing
