"""The gated block: strips against the definition."""

import pytest
import torch

from latentzip.kernels import gated_block as module
from latentzip.kernels.gated_block import BlockWeights, gated_block, reference


def weights(c, expand, dtype=torch.float32):
    torch.manual_seed(0)
    shapes = [(c, c, 1, 1), (c, 1, 3, 3), (c, c, 1, 1), (2 * expand * c, c, 1, 1), (c, expand * c, 1, 1)]
    pairs = [(torch.randn(s) * s[1] ** -0.5, torch.randn(s[0])) for s in shapes]
    return BlockWeights(*(a.to(dtype) for pair in pairs for a in pair))


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (2, 8, 5, 7), (1, 16, 40, 33)])
@pytest.mark.parametrize("expand", [1, 2])
def test_strips_equal_the_definition(shape, expand, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 100)
    monkeypatch.setattr(module, "_BAND", 300)
    w = weights(shape[1], expand, torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=layout)
        with torch.no_grad():
            out = gated_block(given, w, 3.0)
        assert torch.allclose(out, reference(x, w, 3.0), atol=1e-12)
        assert torch.equal(given, x)
    assert out.abs().max() <= 3


def test_autocast_computes_in_its_dtype():
    w, x = weights(8, 2), torch.randn(1, 8, 6, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = gated_block(x, w, 12.0)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), reference(x, w, 12.0), atol=0.3)


def test_gradients_pass_where_they_are_wanted():
    w = BlockWeights(*(a.requires_grad_() for a in weights(4, 1, torch.float64)))
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *w: gated_block(x, BlockWeights(*w), 12.0), (x, *w))
