"""`examples/sft.py`: every YAML file is read, and the stages train exactly what they should."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny import tiny_model, tiny_processor
from transformers import AutoModelForImageTextToText


EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = sorted((EXAMPLES / "configs").rglob("*.yaml"))
ACCELERATE_CONFIGS = sorted((EXAMPLES / "accelerate_configs").rglob("*.yaml"))
# What the paper says (section 4.1): learning rate, rows per step, what learns.
STAGES = {
    "stage1": (1e-3, 256, {"connector"}),
    "stage2": (1e-3, 256, {"region_encoder"}),
    "stage2_5": (2e-5, 128, {"connector", "region_encoder", "language_model", "lm_head"}),
    "stage3": (2e-5, 128, {"connector", "region_encoder", "language_model", "lm_head"}),
}


@pytest.fixture(scope="module")
def sft():
    spec = importlib.util.spec_from_file_location("sft", EXAMPLES / "sft.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["sft"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def parse(sft, config: Path, *arguments: str):
    parser = sft.TrlParser((sft.ScriptArguments, sft.VideoReferSFTConfig, sft.ModelConfig))
    return parser.parse_args_and_config(["--config", str(config), *arguments])


@pytest.mark.parametrize("text", ["synthetic-shapes", '{"path": "x"}', '"x"'])
def test_sources_that_are_no_list_are_named(text, sft):
    with pytest.raises(ValueError, match=r"`datasets` must be a.* list such as \[\{\"path\": \"...\"\}\], got "):
        sft.ScriptArguments(datasets=text)


def test_a_mistyped_option_does_not_pass_for_another(sft, tmp_path, monkeypatch, capsys):
    config = EXAMPLES / "configs" / "stage3.yaml"
    options = {"config": config, "output_dir": tmp_path / "out", "use_cpu": "true", "bf16": "false", "learning_rat": 1}
    monkeypatch.setattr(
        sys, "argv", ["sft.py", *(word for key, value in options.items() for word in (f"--{key}", str(value)))]
    )
    with pytest.raises((SystemExit, ValueError)) as caught:
        sft.main()
    assert "learning_rat" in f"{caught.value} {capsys.readouterr().err}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datasets": None}, "no training rows: `datasets` is empty"),
        ({"lora_r": 8}, "`lora_r` is given, but `use_peft` is false"),
        ({"eval_datasets": '[{"path": "x"}]'}, "`eval_datasets` is given, but `eval_strategy` is no"),
    ],
)
def test_settings_without_effect_are_refused(options, message, sft, tmp_path, monkeypatch, capsys):
    given = {"datasets": '[{"path": "x"}]', **options}
    quiet = {"output_dir": tmp_path / "out", "use_cpu": "true", "bf16": "false", "report_to": "none"}
    words = [f"--{key} {value}".split(" ", 1) for key, value in {**quiet, **given}.items() if value is not None]
    monkeypatch.setattr(sys, "argv", ["sft.py", *(word for pair in words for word in pair)])
    with pytest.raises(SystemExit):
        sft.main()
    assert message in capsys.readouterr().err


def part_of(name: str) -> str:
    return name.removeprefix("model.").split(".")[0]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configs_are_read(config, sft, tmp_path):
    text = config.read_text()
    assert f"examples/sft.py --config examples/configs/{config.name}\n" in text
    script, training, model = parse(sft, config, "--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path))
    assert [sft.DataSource.from_dict(source).path for source in script.datasets]
    assert model.model_name_or_path or (script.vision_model and script.text_model)
    assert model.use_peft == (config.stem in ("lora", "qlora"))
    assert model.load_in_4bit == (config.stem == "qlora")
    written = yaml.safe_load(text)
    assert training.global_batch_size == written["global_batch_size"]
    assert not training.report_to


@pytest.mark.parametrize("name", STAGES)
def test_stages_have_the_settings_of_the_paper(name, sft, tmp_path):
    config = EXAMPLES / "configs" / f"{name}.yaml"
    assert yaml.safe_load(config.read_text())["bf16"] is True
    _, training, _ = parse(sft, config, "--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path))
    learning_rate, rows, modules = STAGES[name]
    assert training.learning_rate == learning_rate
    assert training.gradient_accumulation_steps * training.per_device_train_batch_size == rows
    assert set(training.trainable_modules) == modules
    assert training.multi_frame_ratio == (0.0 if name in ("stage1", "stage2") else 0.5)
    assert (training.lr_scheduler_type, training.warmup_steps, training.weight_decay) == ("cosine", 0.03, 0.0)
    assert (training.optim, training.num_train_epochs) == ("adamw_torch", 1)


@pytest.mark.parametrize("name", STAGES)
def test_stages_train_exactly_their_parts(name, sft, base, tmp_path, monkeypatch):
    config = EXAMPLES / "configs" / f"{name}.yaml"
    source = {"path": "synthetic-shapes", "data_root": str(tmp_path / "clips"), "num_clips": 1, "max_rows": 8}
    arguments = {
        "config": config,
        "model_name_or_path": base,
        "dtype": "float32",
        "datasets": json.dumps([source]),
        "output_dir": tmp_path / "out",
        "max_steps": 2,
        "global_batch_size": 4,
        "per_device_train_batch_size": 2,
        "use_cpu": "true",
        "bf16": "false",
        "dataloader_num_workers": 0,
    }
    monkeypatch.setattr(
        sys, "argv", ["sft.py", *(word for key, value in arguments.items() for word in (f"--{key}", str(value)))]
    )
    seen = []
    train = sft.VideoReferSFTTrainer.train
    monkeypatch.setattr(
        sft.VideoReferSFTTrainer, "train", lambda trainer, **options: (seen.append(trainer), train(trainer, **options))
    )
    sft.main()
    learning_rate, _, modules = STAGES[name]
    groups = seen[0].optimizer.param_groups
    assert {(group["name"], group["initial_lr"]) for group in groups} == {(part, learning_rate) for part in modules}

    before = dict(tiny_model().named_parameters())
    trained = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    unchanged = []
    for parameter, value in trained.named_parameters():
        if part_of(parameter) not in modules:
            assert torch.equal(value, before[parameter]), parameter
        elif torch.equal(value, before[parameter]):
            unchanged.append(parameter)
    assert unchanged == []
    num_learning = sum(part_of(parameter) in modules for parameter in before)
    assert sum(len(group["params"]) for group in groups) == num_learning
    assert "## Training" in (tmp_path / "out" / "README.md").read_text()


def test_the_miniature_keeps_nothing_but_its_tower(sft, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    config = EXAMPLES / "configs" / "tiny.yaml"
    sources = [
        {**source, "data_root": str(tmp_path / "clips"), "num_clips": 6}
        for source in yaml.safe_load(config.read_text())["datasets"]
    ]
    arguments = {
        "config": config,
        "datasets": json.dumps(sources),
        "output_dir": tmp_path / "out",
        "max_steps": 2,
        "lr_scheduler_kwargs": json.dumps({"num_decay_steps": 1}),
        "warmup_steps": 0,
        "region_statistics_rows": 8,
        "per_device_train_batch_size": 8,
        "global_batch_size": 8,
        "logging_steps": 1,
        "dataloader_num_workers": 0,
    }
    monkeypatch.setattr(
        sys, "argv", ["sft.py", *(word for key, value in arguments.items() for word in (f"--{key}", str(value)))]
    )
    sft.main()
    shipped = dict(AutoModelForImageTextToText.from_pretrained(sft.TINY_CHECKPOINT).named_parameters())
    trained = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    names = {name for name, _ in trained.named_parameters()}
    assert names == set(shipped)  # without the heads
    for name, value in trained.named_parameters():
        assert torch.equal(value, shipped[name]) == (part_of(name) == "vision_tower"), name
    assert "| auxiliary losses | objects 0.3 |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("config", ACCELERATE_CONFIGS, ids=lambda path: path.stem)
def test_accelerate_configs_are_read(config):
    from accelerate.commands.config.config_args import load_config_from_file

    loaded = load_config_from_file(str(config))
    assert loaded.num_processes == (8 if config.stem in ("ddp", "zero2", "zero3", "fsdp2") else 1)


def test_there_is_a_config_for_everything():
    assert {path.stem for path in CONFIGS} >= {*STAGES, "lora", "qlora", "tiny"}
    assert {path.stem for path in ACCELERATE_CONFIGS} == {"cpu", "one_gpu", "ddp", "zero2", "zero3", "fsdp2"}


def test_a_start_must_be_named(sft, tmp_path):
    config = EXAMPLES / "configs" / "stage1.yaml"
    script, training, model = parse(sft, config, "--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path))
    script.text_model = None
    with pytest.raises(ValueError, match="Name what to start from: `model_name_or_path`, or `vision_model`"):
        sft.load_model(script, model, training)


@pytest.mark.slow
def test_imports_without_trl(tmp_path):
    """The package itself needs no training library."""
    (tmp_path / "trl.py").write_text("raise ImportError('no trl')\n")
    source = "import transformers_videorefer, transformers_videorefer.data, sys; assert 'trl' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", source], check=True, env=environment)
