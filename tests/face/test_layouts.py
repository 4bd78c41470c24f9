"""Every layout, dtype and byte order of tensors and arrays gives the same stream, or one clear error."""

from __future__ import annotations

import pytest
import torch

import latentzip as lz


@pytest.mark.parametrize("name", ["walloc-rgb-16x", "hyperprior-fast"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "bfloat16", "float32", "float64"])
def test_batches_of_every_dtype_are_the_same_picture(name, dtype):
    y, x = torch.meshgrid(torch.arange(64), torch.arange(80), indexing="ij")
    plain = torch.stack([60 + x, 80 + y, (x + y) % 200 + 20])[None].float() / 255
    scale = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    batch = (plain * scale).round().to(getattr(torch, dtype)) if scale > 1 else plain.to(getattr(torch, dtype))
    codec = lz.load_codec(name)
    stream = codec.encode(batch)[0]
    assert float((codec.decode([stream])[0] - plain[0]).abs().mean()) < 0.02
    whole = lz.decode(stream)
    assert str(whole.dtype) == f"torch.{dtype if scale > 1 else 'float32'}"
    if dtype == "uint8":
        assert torch.equal(lz.decode(lz.encode(batch, name)[0]), whole)
    with pytest.raises(lz.InputError, match=r"\[0, 1\]"):
        codec.encode(plain * 255)
    with pytest.raises(lz.InputError, match="int32 is not supported"):
        codec.encode((plain * 255).int())
    with pytest.raises(lz.InputError, match="NaN"):
        codec.encode(plain * float("nan"))
