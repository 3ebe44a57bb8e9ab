"""On an accelerator: the same numbers as on the CPU. Run with `pytest -m gpu`; without an accelerator they fail."""

import pytest
import torch
from test_generation import answers, batch_inputs, single_inputs
from tiny import tiny_model, tiny_processor


pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device():
    if not torch.accelerator.is_available():
        pytest.fail("Tests marked gpu need an accelerator.")
    return torch.accelerator.current_accelerator()


@pytest.fixture(scope="module")
def batch():
    return batch_inputs(tiny_processor())


def test_float32_equals_the_cpu(device, batch):
    with torch.no_grad():
        expected = tiny_model()(**batch).logits
        found = tiny_model().to(device)(**batch.to(device)).logits.cpu()
    is_text = batch["attention_mask"].bool().cpu()
    torch.testing.assert_close(found[is_text], expected[is_text], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3, "num_return_sequences": 3}, {"cache_implementation": "static"}]
)
def test_generation_equals_the_cpu(device, batch, options):
    expected = answers(tiny_model(), batch_inputs(tiny_processor()), **options)
    assert answers(tiny_model().to(device), batch.to(device), **options).cpu().tolist() == expected.tolist()


@pytest.mark.parametrize("implementation", ["sdpa", "flash_attention_2"])
def test_half_precision_attention(device, implementation):
    if implementation == "flash_attention_2":
        pytest.importorskip("flash_attn")
    inputs = single_inputs(tiny_processor())[2].to(device)
    model = tiny_model().to(device)
    with torch.no_grad():
        expected = model(**inputs).logits
        model = model.to(torch.bfloat16)
        eager = model(**inputs).logits.float()
        model.set_attn_implementation(implementation)
        found = model(**inputs).logits.float()
    scale = expected.norm()
    assert (found - eager).norm() / scale < 3e-2
    assert (found - expected).norm() / scale < 0.1  # weights scaled for sensitivity, see tiny.py
