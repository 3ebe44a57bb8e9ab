"""Model cards of training runs."""

from huggingface_hub import ModelCard

from transformers_videorefer.training.card import TrainingSummary, training_card, write_training_card


FACTS = [("stage", "3"), ("steps", "20")]


def test_card_tells_what_was_done(tmp_path):
    summary = TrainingSummary("org/base", ["org/videos", "my-folder"], FACTS, is_adapter=False)
    write_training_card(tmp_path / "new", summary)
    card = ModelCard.load(tmp_path / "new" / "README.md")
    assert card.data.base_model == "org/base"
    assert card.data.datasets == ["org/videos"]  # the other is no Hub id
    assert card.data.library_name == "transformers"
    assert "Data: org/videos, my-folder." in card.text
    assert "| stage | 3 |\n| steps | 20 |\n" in card.text
    assert "from_pretrained" in card.text


def test_card_of_an_adapter_says_how_to_merge_it(monkeypatch):
    card = training_card(TrainingSummary("org/base", [], FACTS, is_adapter=True))
    data = ModelCard(card).data
    assert data.library_name == "peft"
    assert "merge_and_export(" in card
    assert "AutoModelForImageTextToText" not in card
    # The code of the card runs.
    calls = []
    monkeypatch.setattr("transformers_videorefer.training.lora.merge_and_export", lambda *given: calls.append(given))
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert calls == [("this-folder", "merged")]


def test_card_of_an_adapter_of_a_folder_asks_for_its_base(tmp_path):
    named = training_card(TrainingSummary("org/base", [], FACTS, is_adapter=True))
    unnamed = training_card(TrainingSummary(str(tmp_path), [], FACTS, is_adapter=True))
    assert "base_model=" not in named
    assert 'base_model="folder or Hub id of its base")' in unnamed


def test_card_names_no_folder(tmp_path):
    card = training_card(TrainingSummary(str(tmp_path), [], FACTS, is_adapter=False))
    assert str(tmp_path) not in card
    assert ModelCard(card).data.base_model is None
