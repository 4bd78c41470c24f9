"""Machine perception: any module, any data, real files; scores against what they are defined to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import latentzip as lz
from latentzip.evaluation.perception.agreement import Perception, SegmentedFolder, as_metric, class_folders, perceive
from latentzip.evaluation.perception.tasks import Boundaries, LogMel, Network, boundary_counts, canny, linear_cka
from latentzip.evaluation.signals import Signal

skimage = pytest.importorskip("skimage")


class Brightest(nn.Module):
    """Class = the channel with the highest mean; its answer is known for any picture."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x).flatten(1)


def pictures(count: int = 6, size: int = 48) -> list[tuple[np.ndarray, int]]:
    """Noisy waves in which one channel is a little brighter."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    found = []
    for i in range(count):
        base = 110 + 40 * np.sin(x / (3 + i)) * np.cos(y / 5)
        picture = base[..., None] + rng.normal(0, 6, (size, size, 3)) + 12 * (np.arange(3) == i % 3)
        found.append((picture.clip(0, 255).astype(np.uint8), i % 3))
    return found


def test_codec_by_rate_by_task():
    data = pictures()
    data[0] = data[0][0], 2  # a wrong label: no network has it right
    task = Network("brightest", Brightest(), layer="pool")
    result = perceive(data, ["jpeg@5,90", "walloc-rgb-linear@50"], [task])
    names = ["brightest.agreement", "brightest.accuracy", "brightest.cosine", "brightest.cka"]
    assert result.columns == names
    assert [(r["codec"], r["setting"]) for r in result.rows] == [
        ("original", ""), ("jpeg", "q5"), ("jpeg", "q90"), ("walloc-rgb-linear", "q50")
    ]  # fmt: skip
    original, low, high, ours = result.rows
    assert [original[n] for n in names] == pytest.approx([1, 5 / 6, 1, 1])
    assert original["rate"] is None
    assert low["rate"] < high["rate"]
    sizes = [len(lz.encode(x, "walloc-rgb-linear", 50)) for x, _ in data]
    assert ours["rate"] == pytest.approx(8 * np.mean(sizes) / 48**2)
    assert high["brightest.agreement"] == 1
    assert low["brightest.cka"] < high["brightest.cka"] <= 1 + 1e-9
    table = result.markdown().splitlines()
    assert len(table) == 2 + 4
    assert table[0].startswith("| codec | setting | bpp | brightest.agreement")
    assert "| original |  |  | 1.000 | 0.833 |" in table[2]


def test_kinds_of_data(tmp_path):
    """Paths, Pillow images, tensors, data sets and iterators of pairs are one and the same."""
    plain = pictures(3)
    for i, (x, _) in enumerate(plain):
        (tmp_path / "set" / f"class{i}").mkdir(parents=True)
        Image.fromarray(x).save(tmp_path / "set" / f"class{i}" / "a.png")

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return torch.from_numpy(plain[i][0]).permute(2, 0, 1).float() / 255, plain[i][1]

    paths, classes = class_folders(tmp_path / "set")
    assert classes == ["class0", "class1", "class2"]
    images = ((Image.fromarray(x), t) for x, t in plain)
    results = [perceive(d, ["jpeg@30"], [Network("n", Brightest())]).rows for d in (plain, paths, images, Data())]
    assert results[1:] == results[:1] * 3


def test_transform_and_torchscript():
    """The transform gets what torchvision's get; a module without Python works, its layers do not."""
    seen = []

    def transform(image):
        seen.append(image)
        return torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1).float()

    script = torch.jit.script(Brightest())
    result = perceive(pictures(2), ["png"], [Network("n", script, transform)])
    assert all(isinstance(image, Image.Image) for image in seen)
    assert result.rows[1]["n.agreement"] == 1
    with pytest.raises(lz.InputError, match="TorchScript"):
        Network("n", script, layer="pool")


def test_dense_answers():
    """A network that labels pixels: 0 where red is below a threshold."""

    class Dense(nn.Module):
        def forward(self, x):
            return torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], 1)

    x = np.zeros((32, 40, 3), np.uint8)
    x[:, 20:] = 200
    labels = (x[..., 0] > 100).astype(int)
    labels[:, :10] = 1  # a quarter is labelled otherwise, of which half is left out
    labels[:, :5] = -1
    row = perceive([(x, labels)], ["png"], [Network("dense", Dense(), answers="dense")]).rows[1]
    assert row["dense.agreement"] == 1
    assert row["dense.accuracy"] == pytest.approx(30 / 35)
    with pytest.raises(lz.InputError, match="resize it"):
        perceive([(x, labels[:9])], ["png"], [Network("dense", Dense(), answers="dense")])


def test_pictures_of_many_sizes():
    data = [(np.full((h, w, 3), 99, np.uint8), None) for h, w in ((9, 8), (9, 8), (16, 7), (9, 8))]
    row = perceive(data, ["png"], [Network("n", Brightest())]).rows[1]
    assert row["samples"] == 4
    assert "n.accuracy" not in row


def test_sounds():
    """Features of speech or music: log-mel, or any module on waveforms."""
    rate = 16000
    t = np.arange(rate) / rate
    tones = [(np.sin(2 * np.pi * f * t) * 0.3).astype(np.float32) for f in (440, 880)]
    seen = LogMel(rate)(torch.from_numpy(np.stack(tones)))
    loudest = seen.mean(2).argmax(1)
    assert loudest[0] < loudest[1]
    assert seen.max() == pytest.approx(80 + 20 * np.log10(0.3), abs=3)
    pytest.importorskip("soundfile")
    task = Network("log_mel", LogMel(rate), modality="audio", answers="none")
    sounds = [((tones[0], rate), None), ((tones[1][: rate // 2], rate), None)]
    result = perceive(sounds, ["flac", "opus@6,64"], [task])
    flac, low, high = result.rows[1:]
    assert flac["log_mel.cosine"] == pytest.approx(1, abs=1e-4)
    assert low["log_mel.cosine"] < high["log_mel.cosine"] < 1
    assert result.columns == ["log_mel.cosine"]  # no CKA of features of different sizes
    assert "kbit/s" in result.markdown()
    with pytest.raises(lz.InputError, match="task n is for image signals; the data are audio"):
        perceive([((tones[0], rate), None)], ["opus"], [Network("n", Brightest())])


def test_edges_against_drawn_ones(tmp_path):
    y, x = np.mgrid[:80, :100]
    inside = (x - 50) ** 2 + (y - 40) ** 2 < 25**2
    picture = np.where(inside[..., None], (210, 190, 160), (50, 60, 90)).astype(np.uint8)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(picture).save(tmp_path / "images" / "disc.png")
    with pytest.raises(lz.InputError, match=r"disc\.png has no mask"):
        SegmentedFolder(tmp_path)
    Image.fromarray(inside.astype(np.uint8)).save(tmp_path / "masks" / "disc.png")
    data = SegmentedFolder(tmp_path)
    result = perceive(data, ["jpeg@1,95"], [Boundaries("edges", canny, tolerance=0.02)])
    original, low, high = result.rows
    assert original["edges.f_score"] > 0.95
    assert high["edges.f_score"] > 0.95
    assert low["edges.agreement"] > 0.9
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    rough = perceive([(noise, None)], ["jpeg@1,95"], [Boundaries("fine", lambda x: canny(x, 1), 0.0)]).rows
    assert rough[1]["fine.agreement"] < rough[2]["fine.agreement"] <= 1
    assert "fine.f_score" not in rough[0]
    blank = Boundaries("b", lambda x: np.zeros(x.shape[:2], bool))
    nothing = [np.zeros((5, 5), bool)]
    assert blank.score(nothing, nothing, [None]) == {"agreement": 1.0}


def test_boundary_counts():
    a, b = np.zeros((2, 9, 9), bool)
    a[:, 2] = True
    b[:, 4] = True
    assert boundary_counts(a, b, 1.9) == (0, 9, 0, 9)
    assert boundary_counts(a, b, 2.0) == (9, 9, 9, 9)
    b[4] = True
    assert boundary_counts(a, b, 0.5) == (1, 9, 1, 17)


def test_linear_cka():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 5, generator=g)
    q, _ = torch.linalg.qr(torch.randn(5, 5, generator=g))
    assert linear_cka(x, 3 * x @ q + 7) == pytest.approx(1)
    a, b = (m - m.mean(0) for m in (x.double(), torch.randn(20, 3, generator=g).double()))
    direct = (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert linear_cka(a, b) == pytest.approx(float(direct))
    assert linear_cka(torch.ones(4, 2), torch.ones(4, 2)) == 1


def test_rate_at():
    rows = [{"codec": "original", "rate": None, "f": 1.0}]
    rows += [{"codec": "a", "rate": r, "f": f} for r, f in ((0.1, 0.5), (0.4, 0.9), (1.6, 0.8), (6.4, 1.0))]
    result = Perception("image", rows, ["f"])
    assert result.rate_at("a", "f", 0.9) == pytest.approx(3.2)  # from there on for good
    assert result.rate_at("a", "f", 0.7) == pytest.approx(0.2)
    assert np.isnan(result.rate_at("a", "f", 1.1))
    assert np.isnan(result.rate_at("a", "f", 0.4))
    with pytest.raises(lz.InputError, match="nothing was measured"):
        result.rate_at("b", "f", 0.5)


def test_what_is_refused():
    data = pictures(2)
    task = Network("n", Brightest())
    for bad, text in (
        (lambda: perceive([], ["jpeg"], [task]), "no data"),
        (lambda: perceive(data, ["jpeg"], []), "no task"),
        (lambda: perceive(data, ["jpeg"], [task, task]), "one name"),
        (lambda: perceive(data, ["jpge"], [task]), "did you mean 'jpeg'"),
        (lambda: perceive([data[0][0]], ["jpeg"], [task]), "sample 0 .* no pair"),
        (lambda: Network("n", Brightest(), layer="nowhere"), "no layer 'nowhere'; its children are pool"),
        (lambda: Network("n", Brightest(), answers="many"), "one of class"),
        (lambda: perceive(data, ["png"], [Network("n", nn.Identity())]), r"returns \(2, 3, 48, 48\)"),
        (lambda: class_folders("/nonexistent-folder"), "no folders of pictures"),
    ):
        with pytest.raises(lz.InputError, match=text):
            bad()


def test_a_codec_that_fails_is_named():
    from latentzip.evaluation.coders import Coder

    class Broken(Coder):
        def encode(self, signal, setting):
            raise RuntimeError("no luck")

    with pytest.raises(lz.CodecError, match="broken failed on sample 0: no luck"):
        perceive(pictures(1), [Broken("broken", "image", "", ())], [Network("n", Brightest())])


def test_observations_are_of_the_decoded():
    x = pictures(1)[0][0]
    task = Network("n", Brightest(), answers="none")
    ((_, features),) = task.observe([Signal("x", "image", x)])
    assert features.tolist() == pytest.approx((x / 255).mean((0, 1)).tolist(), abs=1e-5)


def test_a_task_as_a_metric(monkeypatch):
    """Any network may be a column of an evaluation and its report."""
    from latentzip.evaluation import evaluate, register
    from latentzip.evaluation.metrics import registry

    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))
    task = Network("brightest", Brightest(), answers="none")
    register(as_metric(task, "cosine"))
    x = pictures(1)[0][0]
    result = evaluate(x, ["jpeg@5,95"], metrics=["psnr", "brightest.cosine"])
    low, high = (row["brightest.cosine"] for row in result.rows)
    decoded = perceive([(x, None)], ["jpeg@5,95"], [task]).rows[1:]
    assert [low, high] == pytest.approx([r["brightest.cosine"] for r in decoded], abs=1e-6)
    assert low < high
