"""Released weights train on: what a release became in rounding is where the run starts, to the bit where it decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from latentzip import pretrained
from latentzip.codecs.hyperprior import HyperpriorCodec, HyperpriorConfig, from_bytes
from latentzip.codecs.precision import multiplies_bfloat16
from latentzip.entropy import exact
from latentzip.entropy.errors import InputError
from latentzip.entropy.priors import FactorizedPrior
from latentzip.training.precision import mixed
from latentzip.training.recipes import RECIPES, make_trainer
from latentzip.training.restore import trainable_hyperprior
from latentzip.training.soap import SOAP


@pytest.mark.parametrize("name", ["hyperprior-fast", "gmm"])
def test_a_shipped_codec_becomes_trainable_and_exports_the_same_numbers(name):
    codec = from_bytes(pretrained.find(name).read())
    both = trainable_hyperprior(codec)
    model = both["model"]
    assert isinstance(model, HyperpriorCodec)
    for net in (model.scale_net, model.mixture_net):
        if net is not None:
            for layer in net:
                if isinstance(layer, exact.QatConv2d):
                    layer.quantised = True
    z = torch.randint(-40, 41, (1, codec.config.hyper + 1, 6, 6)).float()
    assert torch.equal(exact.export(model.scale_net)(z), codec.scale_net(z))
    assert torch.equal((model.scale_net(z) * 8).int(), codec.scale_net(z))
    if codec.mixture_net is not None:
        assert model.mixture_net is not None
        assert torch.equal(exact.export(model.mixture_net)(z), codec.mixture_net(z))
    x, quality = torch.rand(1, 3, 64, 64), torch.full((1,), 60.0)
    with torch.no_grad():
        y = codec.analysis_transform(x - 0.5, quality, codec.std)
        torch.testing.assert_close(model.analysis_transform(x - 0.5, quality, model.std), y, atol=1e-4, rtol=1e-4)


def test_a_codec_without_an_entropy_model_is_no_release():
    config = HyperpriorConfig(width=16, latent=16, hyper=16, features=16, scale_width=16)
    with pytest.raises(InputError, match="no entropy model"):
        trainable_hyperprior(HyperpriorCodec(config))


def test_tables_become_a_prior_of_their_costs():
    prior = FactorizedPrior(3)
    with torch.no_grad():
        prior.logits.add_(torch.randn_like(prior.logits))
    bank = prior.bank()
    again = FactorizedPrior(3)
    again.restore(bank)
    z = torch.randint(-4, 5, (1, 3, 9, 9)).float()
    assert again.bits(z).item() == pytest.approx(prior.bits(z).item(), rel=0.02)
    assert torch.isfinite(again.logits).all()


def test_a_run_starts_from_the_release(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    recipe = replace(RECIPES["hyperprior"], batch=1, crop=64)
    trainer = make_trainer(recipe, str(tmp_path), tmp_path / "run", init="release")
    assert trainer.origin == "from release 2 of hyperprior"
    shipped = from_bytes(pretrained.find("hyperprior").read())
    for key, value in shipped.state_dict().items():
        if not key.startswith(("scale_net", "scale_context")):
            assert torch.equal(trainer.averaged()["model"].state_dict()[key], value), key


def test_bfloat16_is_used_where_the_processor_has_it():
    with mixed(torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu") == multiplies_bfloat16()


def test_soap_needs_fewer_steps_than_adam_on_correlated_features():
    """Least squares whose inputs have a condition of 10^4: the case that its rotation is for."""
    torch.manual_seed(0)
    mix = torch.linalg.qr(torch.randn(32, 32)).Q * torch.logspace(0, -2, 32)
    x = torch.randn(512, 32) @ mix.t() @ torch.linalg.qr(torch.randn(32, 32)).Q
    target = x @ torch.randn(32, 24)

    def loss_after(make, steps=200):
        weight = torch.nn.Parameter(torch.zeros(24, 32))
        optimizer = make([weight])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            (x @ weight.t() - target).square().mean().backward()
            optimizer.step()
            schedule.step()
        return (x @ weight.t() - target).square().mean().item()

    def adam(p, lr):
        return torch.optim.Adam(p, lr=lr, betas=(0.9, 0.99))

    best = [min(loss_after(lambda p, lr=lr, f=f: f(p, lr=lr)) for lr in (0.03, 0.1, 0.3)) for f in (SOAP, adam)]
    assert best[0] < 0.1 * best[1]


def test_soap_goes_on_from_its_state():
    torch.manual_seed(0)
    first, second = (torch.nn.Parameter(torch.ones(16, 20)) for _ in range(2))
    gradients = torch.randn(24, 16, 20)
    one, two = SOAP([first]), SOAP([second])
    for i, gradient in enumerate(gradients):
        if i == 12:
            state, two = two.state_dict(), SOAP([second])
            two.load_state_dict(state)
        first.grad, second.grad = gradient.clone(), gradient.clone()
        one.step()
        two.step()
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["walloc-rgb-16x", "walloc-audio-20x"])
def test_linear_encoders_start_with_an_estimate_of_their_rate(name, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    rng = np.random.default_rng(0)
    t = np.arange(9000) / 44100
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(2 * np.pi * 440 * t) + rng.normal(0, 0.01, 9000), 44100)
    noise = np.cumsum(rng.normal(0, 3, (96, 96, 3)), 0) + 128
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    crop = 4096 if "audio" in name else 64
    trainer = make_trainer(replace(RECIPES[name], batch=2, crop=crop), str(tmp_path), tmp_path / "run", init="release")
    assert trainer.origin == f"from release {pretrained.find(name).version} of {name}"
    fresh = make_trainer(replace(RECIPES[name], batch=2, crop=crop), str(tmp_path), tmp_path / "other")
    fresh.model.load_state_dict(trainer.model.state_dict())
    crops = trainer.sampler.make()
    key = "kbps" if "audio" in name else "bpp"
    with torch.no_grad():
        assert trainer.loss(crops)[1][key] < fresh.loss(crops)[1][key]
