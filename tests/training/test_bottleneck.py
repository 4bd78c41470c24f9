"""Feature distortion, labelled folders, and the run of three parts from pictures to streams."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import latentzip as lz
from latentzip.codecs.hyperprior.codec import HyperpriorConfig
from latentzip.training import bottleneck, hyperprior
from latentzip.training.bottleneck import DISTIL, TEACHER, TUNE, LabelledSampler, SmallCNN, classes_of
from latentzip.training.distortion import FeatureDistortion, taps
from latentzip.training.recipes import make_trainer

ROOT = Path(__file__).resolve().parents[2]
TINY = replace(
    bottleneck.Recipe(),
    model=lz.BottleneckConfig(outputs=48, latent=4, encoder_width=16, decoder_width=16),
    steps=9,
    batch=3,
    crop=32,
    warmup=2,
    teacher_until=1 / 3,
    distil_until=2 / 3,
)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Two classes of four pictures: stripes across and stripes down."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for name, across in (("across", True), ("down", False)):
        (folder / name).mkdir()
        for i in range(4):
            y, x = np.mgrid[:60, : 48 + 8 * i]
            stripes = 128 + 90 * np.sin((y if across else x) * rng.uniform(0.5, 0.9))
            picture = np.clip(stripes[..., None] + rng.normal(0, 9, (*x.shape, 3)), 0, 255)
            Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_distortion_grows_with_distance_and_has_gradients(metric):
    net = network().train()
    distortion = FeatureDistortion(net, ["2", "4"], metric)
    x = torch.rand(2, 3, 8, 8)
    assert distortion(x, x).abs().max() < 1e-6
    noise = torch.randn_like(x)
    y = (x + 0.1 * noise).requires_grad_()
    near, far = distortion(x, y), distortion(x, x + 0.5 * noise)
    assert (near < far).all()
    near.sum().backward()
    assert y.grad is not None
    assert y.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in net.parameters())  # the network itself is left alone
    assert net.training
    assert not distortion.train().model.training


def test_distortion_prepares_inputs():
    x = torch.rand(1, 3, 8, 8)
    plain, scaled = FeatureDistortion(network(), ["0"]), FeatureDistortion(network(), ["0"], prepare=lambda v: 2 * v)
    torch.testing.assert_close(scaled.features(x)[0], plain.features(2 * x)[0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: FeatureDistortion(network(), ["0"], "l7"), "one of mse, cosine"),
        (lambda: FeatureDistortion(network(), []), "some layer"),
        (lambda: taps(network(), ["none"], torch.rand(1, 3, 8, 8)), "no layer 'none'"),
        (lambda: taps(nn.ModuleDict({"a": network()})["a"], [""], torch.rand(1, 3, 8, 8)), None),
    ],
)
def test_layers_are_checked(call, text):
    if text is None:
        assert call()[0].shape == (1, 5)  # "" is the whole network
        return
    with pytest.raises(lz.InputError, match=text):
        call()


def test_batches_know_their_labels(labelled):
    sampler = LabelledSampler(labelled, 6, 32, seed=3)
    batches = [sampler.make() for _ in range(3)]
    assert batches[0].shape == (6, 3, 32, 32)
    again = LabelledSampler(labelled, 6, 32, seed=3, start=2)
    assert torch.equal(again.make(), batches[2])
    for step, batch in enumerate(batches):  # stripes across change along the first axis
        gray = batch.float().mean(1)
        across = gray.diff(dim=1).abs().mean((1, 2)) > gray.diff(dim=2).abs().mean((1, 2))
        assert torch.equal(across, sampler.labels(step) == 0)


def test_folders_without_classes_are_explained(tmp_path):
    with pytest.raises(lz.InputError, match="one a class"):
        classes_of(tmp_path)


def run(recipe, labelled, folder, steps=None):
    trainer = make_trainer(recipe, str(labelled), folder)
    trainer.train(str(labelled), log=lambda _: None, every=4, until_step=steps)
    trainer.save()
    return trainer


def test_the_three_parts(labelled, tmp_path):
    """Each part trains what it says and nothing else; a run that was broken off ends as one that was not."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        states = {}
        for steps, part in ((3, TEACHER), (6, DISTIL), (9, TUNE)):
            trainer = run(TINY, labelled, tmp_path / "steps", steps)
            states[part] = {key: value.clone() for key, value in trainer.modules.state_dict().items()}
        whole = run(TINY, labelled, tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(value, states[TUNE][key]) for key, value in whole.modules.state_dict().items())

    def changed(a, b):
        keys = {key for key, value in states[b].items() if not torch.equal(value, states[a][key])}
        return {".".join(key.split(".")[: 2 if key.startswith("model") else 1]) for key in keys}

    distilled = changed(TEACHER, DISTIL)
    assert {"model.encoder", "model.decoder", "model.scale_net"} <= distilled
    assert {"model.decoder", "tail"} <= changed(DISTIL, TUNE)
    teacher, model, rest = whole.networks()
    x = torch.rand(1, 3, 32, 32)
    assert teacher(x).shape == rest(torch.stack(model.decode(model.encode(x)))).shape == (1, 2)


def test_release_is_a_codec_a_tail_and_a_teacher(labelled, tmp_path):
    arguments = ["bottleneck", "--data", labelled, "--run", tmp_path / "run", "--threads", "1", "--export", tmp_path]
    for item in ("steps=3", "batch=2", "crop=32", "teacher_until=0.34", "distil_until=0.67"):
        arguments += ["--set", item]
    program = [sys.executable, ROOT / "scripts" / "train.py", *arguments]
    subprocess.run([str(a) for a in program], check=True, capture_output=True)
    codec = lz.load_codec(tmp_path / "bottleneck-v1.safetensors")
    x = torch.rand(1, 3, 64, 32)
    features = lz.decode(codec.encode(x, 20)[0], codec=codec)
    rest = lz.codecs.bottleneck.tail(SmallCNN(2), SmallCNN.SPLIT).eval()
    rest.load_state_dict(load_file(tmp_path / "bottleneck-v1.tail.safetensors"))
    assert rest(features[None]).shape == (1, 2)
    raw = (tmp_path / "bottleneck-v1.teacher.safetensors").read_bytes()
    meta = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert json.loads(meta["classes"]) == ["across", "down"]


def test_image_codecs_train_for_features(labelled, tmp_path):
    model = HyperpriorConfig(
        width=16, analysis_depth=1, synthesis_depth=1, latent=16, hyper=16, features=16, scale_width=16
    )
    recipe = replace(hyperprior.Recipe(), name="tiny", model=model, metric="features", steps=2, batch=2, crop=64)
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)).save(photos / "a.png")
    trainer = make_trainer(recipe, str(photos), tmp_path / "run")
    crops = trainer.sampler.make()
    with pytest.raises(lz.InputError, match=r"trainer\.features"):
        trainer.loss(crops)
    seen = []

    def features(x, y):
        seen.append(x.shape)
        return distortion(x, y)

    distortion = FeatureDistortion(nn.Conv2d(3, 4, 3), [""])
    trainer.features = features
    with_features, _ = trainer.loss(crops)
    assert seen == [(2, 3, 64, 64)]
    assert torch.isfinite(with_features)
