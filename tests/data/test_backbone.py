"""Latents as the input of standard backbones: shapes, gradients, and that one learns."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import latentzip as lz
from latentzip.data import LatentDataset, LatentStream, image_classifier_input, pack

CODEC = "walloc-rgb-16x"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """16 pictures of two kinds of stripes, 64 x 64."""
    base = tmp_path_factory.mktemp("stripes")
    y, x = np.mgrid[:64, :64]
    for i in range(16):
        place = base / "in" / ("down", "across")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        wave = np.sin((x if i % 2 else y) / (3 + i / 8) + i) * 90 + 128
        Image.fromarray(np.repeat(wave[..., None], 3, 2).astype(np.uint8)).save(place / f"{i}.png")
    pack(base / "in", base / "pack", CODEC, labels="folders", coding="fast", jobs=1)
    return LatentDataset(base / "pack")


def test_what_comes_out(data):
    latent = lz.data.latent_collate(data.__getitems__(range(8)))["latent"]
    plain = image_classifier_input(data)
    assert torch.equal(plain(latent), lz.data.Dequantize(data)(latent))
    assert (plain.channels, plain.size) == (12, (8, 8))
    assert list(plain.parameters()) == []
    wide = image_classifier_input(data, 3, scale=4, kernel=3)
    y = wide(latent)
    assert y.shape == (8, 3, 32, 32)
    assert (wide.channels, wide.size) == (3, (32, 32))
    assert image_classifier_input(CODEC, 64)(latent).shape == (8, 64, 8, 8)
    assert image_classifier_input(CODEC, 64).size is None
    copy = image_classifier_input(data, 3, scale=4, kernel=3)
    copy.load_state_dict(wide.state_dict())
    assert torch.equal(copy(latent), y)


def test_deviation_is_kept():
    """Numbers of unit deviation come out with unit deviation, whatever the product is."""
    torch.manual_seed(0)
    module = image_classifier_input(CODEC, 16, scale=2, kernel=3)
    y = module.expand(torch.randn(4, 12, 24, 24))
    assert 0.8 < float(y.detach().std()) < 1.2


def test_what_makes_no_sense():
    for wrong in ({"scale": 0}, {"kernel": 2}, {"channels": 0}):
        with pytest.raises(lz.InputError, match="positive numbers"):
            image_classifier_input(CODEC, **wrong)
    with pytest.raises(lz.InputError, match="codec of pictures"):
        image_classifier_input("walloc-audio-5x")
    with pytest.raises(lz.InputError, match="a codec, its name"):
        image_classifier_input(3)


def trained(model, data, steps=12):
    """Accuracy on what it was trained on, by the statistics of that: running ones of so few steps say little."""
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for batch in LatentStream(data, 8, epochs=steps // 2, seed=1):
        loss = nn.functional.cross_entropy(model(batch["latent"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    everything = lz.data.latent_collate(data.__getitems__(range(16)))
    with torch.no_grad():
        return float((model(everything["latent"]).argmax(1) == everything["label"]).float().mean())


@pytest.mark.parametrize("way", ["stem", "scale"])
def test_torchvision(data, way):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    block = models.resnet.BasicBlock
    resnet = models.ResNet(block, [1, 1, 1, 1], num_classes=2)
    if way == "stem":
        resnet.conv1, resnet.maxpool = image_classifier_input(data, 64, kernel=3), nn.Identity()
        model = resnet
    else:
        model = nn.Sequential(image_classifier_input(data, 3, scale=4), resnet)
    assert trained(model, data) >= 0.9


def test_timm(data):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    entry = image_classifier_input(data)
    vit = timm.create_model(
        "vit_tiny_patch16_224", num_classes=len(data.classes or ()), img_size=entry.size, patch_size=1,
        in_chans=entry.channels, depth=2, embed_dim=48, num_heads=3,
    )  # fmt: skip
    assert trained(nn.Sequential(entry, vit), data, 40) >= 0.9


def test_latents_of_sound():
    codec = lz.load_codec("walloc-audio-5x")
    latent = torch.randint(-127, 128, (2, 108, 9), dtype=torch.int8)
    units = lz.data.Dequantize("walloc-audio-5x", normalize=False)
    assert torch.allclose(units(latent), codec.dequantize(latent))
    four = latent.repeat(1, 2, 1)  # of four channels
    assert torch.equal(units(four)[:, 108:], units(latent))
    normal = lz.data.Dequantize("walloc-audio-5x")
    assert torch.allclose(normal(latent) * codec.latent_deviation(), units(latent), rtol=1e-5)
    with pytest.raises(lz.InputError, match="to='signal'"):
        lz.data.Dequantize("audio")
    with pytest.raises(lz.InputError, match="frames"):
        units(latent[0])
