"""What happens at the borders of epochs and steps."""

import types

from transformers_videorefer.training.progress import ProgressCallback


def test_collator_and_sampler_hear_of_the_epoch_of_a_resumed_run():
    heard = []
    listeners = [
        types.SimpleNamespace(set_epoch=lambda epoch, name=name: heard.append((name, epoch))) for name in "ab"
    ]
    trainer = types.SimpleNamespace(data_collator=listeners[0], sampler=listeners[1])
    callback = ProgressCallback(trainer)
    callback.on_train_begin(None, types.SimpleNamespace(epoch=2.5), None)
    callback.on_epoch_begin(None, None, None)
    callback.on_epoch_begin(None, None, None)
    assert heard == [("a", 2), ("b", 2), ("a", 3), ("b", 3)]


def test_collators_and_orders_of_others_need_not_know():
    trainer = types.SimpleNamespace(data_collator=len, sampler=None)
    callback = ProgressCallback(trainer)
    callback.on_train_begin(None, types.SimpleNamespace(epoch=None), None)
    callback.on_epoch_begin(None, None, None)


def test_steps_and_epochs_call_the_trainer():
    called = []
    trainer = types.SimpleNamespace(
        note_learning_rates=lambda: called.append("rates"),
        guard=types.SimpleNamespace(check=lambda: called.append("guard")),
    )
    callback = ProgressCallback(trainer)
    callback.on_pre_optimizer_step(None, None, None)
    callback.on_epoch_end(None, None, None)
    assert called == ["rates", "guard"]
