"""Parameter groups with a learning rate per part of the model, and Muon for weight matrices."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .config import VideoReferSFTConfig
from .stages import AUXILIARY_HEADS, LEARNING_MODULES, module_of_parameter


MATRICES = "matrices"
_PARTS = (*LEARNING_MODULES, AUXILIARY_HEADS)


def learning_rates_of(args: VideoReferSFTConfig) -> dict[str, float]:
    """Work out the peak learning rate of each part of the model.

    Args:
        args ([`VideoReferSFTConfig`]): Settings.

    Returns:
        `dict[str, float]`: One for each of `LEARNING_MODULES` and for the heads of auxiliary losses.
    """
    rates = dict.fromkeys(_PARTS, args.learning_rate)
    for names, rate in (
        (("connector",), args.connector_learning_rate),
        (("region_encoder",), args.region_encoder_learning_rate),
        (("language_model", "lm_head"), args.language_model_learning_rate),
    ):
        rates.update({} if rate is None else dict.fromkeys(names, rate))
    return rates


def parameter_groups(
    model: nn.Module,
    *,
    learning_rates: dict[str, float],
    weight_decay: float,
    decay_names: Iterable[str],
    matrix_learning_rate: float | None = None,
) -> list[dict[str, Any]]:
    """Sort the parameters that learn into groups.

    Args:
        model (`nn.Module`): The model, wrapped or not.
        learning_rates (`dict[str, float]`): Peak learning rate of each part of `LEARNING_MODULES`, and of
            `auxiliary_heads` if there are any.
        weight_decay (`float`): Weight decay.
        decay_names (`Iterable[str]`): Names of the parameters it concerns; biases and norms have none.
        matrix_learning_rate (`float`, *optional*): Peak learning rate of weight matrices, which then make groups of
            their own. Embeddings and heads count as no matrices: their rows belong to single tokens or classes.

    Returns:
        `list[dict[str, Any]]`: Groups with `name`, `params`, `lr` and `weight_decay`, in the order of
        `LEARNING_MODULES`. Names are those of the parts, with `_no_decay` and `_matrices` where that sets them apart.

    Raises:
        ValueError: If a parameter learns that belongs to no such part, or none learns at all.
    """
    decay_names = set(decay_names)
    not_matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.weight is not None
    }
    groups: dict[str, dict[str, Any]] = {}
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        part = module_of_parameter(name)
        if part not in _PARTS:
            raise ValueError(
                f"`{name}` learns, but belongs to none of {', '.join(LEARNING_MODULES)}. Freeze it, or give an "
                "optimizer of your own."
            )
        is_matrix = matrix_learning_rate is not None and value.ndim == 2
        is_matrix = is_matrix and part not in ("lm_head", AUXILIARY_HEADS) and id(value) not in not_matrices
        decays = weight_decay > 0 and name in decay_names
        key = f"{part}_{MATRICES}" if is_matrix else part if decays or weight_decay == 0 else f"{part}_no_decay"
        group = groups.setdefault(
            key,
            {
                "name": key,
                "params": [],
                "lr": matrix_learning_rate if is_matrix else learning_rates[part],
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(value)
    if not groups:
        raise ValueError("No parameter of the model learns. Check `trainable_modules` or the LoRA configuration.")
    return sorted(groups.values(), key=lambda group: _place(group["name"]))


def _place(name: str) -> tuple[int, str]:
    part = next(part for part in _PARTS if name.startswith(part))
    return _PARTS.index(part), name


class JoinedOptimizer(Optimizer):
    """Several optimizers as one, each with parameter groups of its own: schedulers and checkpoints see one.

    Args:
        optimizers (`list[Optimizer]`): The optimizers.
    """

    def __init__(self, optimizers: list[Optimizer]):
        self.optimizers = optimizers
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self._link()

    def _link(self) -> None:
        # The very dictionaries of the parts: a learning rate set here is theirs.
        self.param_groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def state(self) -> dict[torch.Tensor, Any]:
        """`dict`: State of each parameter."""
        return {key: value for optimizer in self.optimizers for key, value in optimizer.state.items()}

    @state.setter
    def state(self, value: dict[torch.Tensor, Any]) -> None:
        # Set empty by the base class; the parts keep their own.
        pass

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let every optimizer make its step.

        Args:
            closure (`Callable`, *optional*): Computes the loss anew.

        Returns:
            `Any`: What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all parts.

        Returns:
            `dict[str, Any]`: `optimizers` with one state each; `param_groups` are those of all, as schedulers and
            wrappers read them.
        """
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        return {"state": {}, "param_groups": [g for s in states for g in s["param_groups"]], "optimizers": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned.

        Args:
            state_dict (`dict[str, Any]`): The states.

        Raises:
            ValueError: If it belongs to another kind of optimizer.
        """
        states = state_dict.get("optimizers")
        if states is None or len(states) != len(self.optimizers):
            raise ValueError(
                "The state of the optimizer in the checkpoint is not one of `matrix_optimizer`. Resume with the "
                "settings that the checkpoint was made with."
            )
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        self._link()


def build_optimizer(groups: list[dict[str, Any]], optimizer_class: type[Optimizer], **kwargs: Any) -> Optimizer:
    """Make the optimizer of some groups.

    Args:
        groups (`list[dict[str, Any]]`): What `parameter_groups` returned.
        optimizer_class (`type[Optimizer]`): Class of the optimizer of everything but matrices.
        kwargs: Its settings.

    Returns:
        `Optimizer`: One of `optimizer_class`, or one joined with Muon where there are groups of matrices.
    """
    matrices = [group for group in groups if group["name"].endswith(f"_{MATRICES}")]
    if not matrices:
        return optimizer_class(groups, **kwargs)
    parts: list[Optimizer] = [torch.optim.Muon(matrices, momentum=0.95, nesterov=True)]
    others = [group for group in groups if not group["name"].endswith(f"_{MATRICES}")]
    if others:
        parts.append(optimizer_class(others, **kwargs))
    return JoinedOptimizer(parts)
