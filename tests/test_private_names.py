"""A contract with the host libraries: every private name of theirs that we use exists, with the parameters we rely on.

A rename then fails one named test, and not hundreds.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from exported_code import exported_files

import transformers_videorefer


PACKAGE = Path(transformers_videorefer.__file__).parent
PROCESSOR = "transformers.processing_utils.ProcessorMixin"
VIDEO_PROCESSOR = "transformers.video_processing_utils.VideoProcessorMixin"
GENERATION = "transformers.generation.utils.GenerationMixin"
TRAINER = "transformers.trainer.Trainer"

# Methods that we call or override -> where they live and the parameters we hand over or take.
METHODS = {
    "_check_special_mm_tokens": (PROCESSOR, ["text", "text_inputs", "modalities"]),
    "_expand_inputs_for_generation": (GENERATION, ["expand_size", "is_encoder_decoder", "input_ids", "model_kwargs"]),
    "_finish_current_push": (TRAINER, []),
    "_generate_examples": ("datasets.GeneratorBasedBuilder", []),
    "_get_candidate_generator": (GENERATION, ["generation_config", "input_ids"]),
    "_get_logits_processor": (GENERATION, ["generation_config", "input_ids_seq_length", "logits_processor"]),
    "_get_num_multimodal_tokens": ("transformers.LlavaOnevisionProcessor", ["image_sizes", "video_sizes"]),
    "_get_output_dir": (TRAINER, ["trial"]),
    "_get_train_sampler": (TRAINER, ["train_dataset"]),
    "_info": ("datasets.GeneratorBasedBuilder", []),
    "_init_weights": ("transformers.PreTrainedModel", ["module"]),
    "_load_best_model": (TRAINER, []),
    "_load_from_checkpoint": (TRAINER, ["resume_from_checkpoint", "model"]),
    "_merge_kwargs": (PROCESSOR, ["tokenizer_init_kwargs", "kwargs"]),
    "_multimodal_inputs_from_conversations": (PROCESSOR, ["conversations"]),
    "_normalize_conversations": (PROCESSOR, ["conversation"]),
    "_prepare_multimodal_encoder_kwargs_for_generation": (GENERATION, ["model_kwargs"]),
    "_push_from_checkpoint": (TRAINER, ["checkpoint_folder"]),
    "_save": (TRAINER, ["output_dir", "state_dict"]),
    "_save_checkpoint": (TRAINER, ["model", "trial"]),
    "_set_attributes": (VIDEO_PROCESSOR, ["kwargs"]),
    "_set_signature_columns_if_needed": ("trl.SFTTrainer", []),
    "_set_sync_gradients": ("accelerate.state.GradientState", ["sync_gradients"]),
    "_split_generators": ("datasets.GeneratorBasedBuilder", ["dl_manager"]),
    "_standardize_kwargs": (VIDEO_PROCESSOR, ["kwargs"]),
}
# What the library documents to be declared by a model class, and reads from it.
DECLARATIONS = {
    "_can_compile_fullgraph",
    "_keys_to_ignore_on_load_unexpected",
    "_no_split_modules",
    "_supports_attention_backend",
    "_supports_flash_attn",
    "_supports_flex_attn",
    "_supports_sdpa",
    "_tied_weights_keys",
    "_tp_plan",
}
# Attributes that instances have.
ATTRIBUTES = {
    "_metrics": "of TRL's trainer: numbers for the next log",
}


def resolve(path: str) -> type:
    """Import a class by its full name."""
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def trees() -> Iterator[ast.AST]:
    for file in sorted(PACKAGE.rglob("*.py")):
        yield ast.parse(file.read_text(encoding="utf-8"))


def names_of_ours() -> set[str]:
    """Functions, classes, variables and attributes that the package defines anywhere."""
    ours = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                ours.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                ours.add(node.attr)
    return ours


def names_used_of_hosts() -> set[str]:
    """Private names that are read from something of a host: through `super()`, or defined nowhere in the package."""
    ours, used = names_of_ours(), set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                through_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
                if through_super or node.attr not in ours:
                    used.add(node.attr)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
                name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
                if is_private(name) and name not in ours:
                    used.add(name)
    return used


def names_overridden() -> set[str]:
    """Private names of a host's class that a class of ours defines again."""
    overridden = set()
    for found in pkgutil.walk_packages(transformers_videorefer.__path__, "transformers_videorefer."):
        for value in vars(importlib.import_module(found.name)).values():
            if not inspect.isclass(value) or not value.__module__.startswith("transformers_videorefer"):
                continue
            hosts = [
                base
                for base in value.__mro__[1:-1]
                if base.__module__.split(".")[0] in ("transformers", "trl", "datasets", "accelerate", "peft")
            ]
            ours = [base for base in value.__mro__ if base.__module__.startswith("transformers_videorefer")]
            names = {name for base in ours for name in vars(base) if is_private(name)}
            overridden |= {name for name in names if any(name in vars(host) for host in hosts)}
    return overridden


@pytest.mark.parametrize("name", METHODS)
def test_private_methods_take_what_we_hand_over(name):
    owner, parameters = METHODS[name]
    method = getattr(resolve(owner), name, None)
    assert method is not None, f"{owner} has no `{name}` any more"
    found = inspect.signature(method).parameters
    missing = [parameter for parameter in parameters if parameter not in found]
    assert not missing, f"`{owner}.{name}` takes {list(found)}"


@pytest.mark.parametrize("name", sorted(DECLARATIONS))
def test_declarations_are_still_read(name):
    from transformers import modeling_utils
    from transformers.distributed import mixin

    assert name in inspect.getsource(modeling_utils) + inspect.getsource(mixin)


def test_attributes_of_instances_are_there():
    from trl.trainer import sft_trainer

    assert "self._metrics[" in inspect.getsource(sft_trainer)


def test_every_private_name_in_use_has_its_line_here():
    in_use = names_used_of_hosts() | names_overridden()
    # Serving engines ask for the first; no base class has it. Declarations are also set on instances.
    elsewhere = {"_get_num_multimodal_tokens", *DECLARATIONS}
    assert in_use - {*METHODS, *DECLARATIONS, *ATTRIBUTES} == set()
    assert {*METHODS, *ATTRIBUTES} - in_use - elsewhere == set(), "a line for a name that nothing uses"


def test_nothing_private_is_imported_at_the_top_of_an_exported_file():
    for file in exported_files().values():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert [alias.name for alias in node.names if is_private(alias.name)] == [], file.name
