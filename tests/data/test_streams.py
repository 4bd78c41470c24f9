"""Several streams a sample, and packs written by a loop."""

from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import latentzip as lz
from latentzip.data import Archive, LatentDataset, LatentStream, PackWriter, check_pack, pack, unpack

from .conftest import CODEC
from .sets import rows, tone, wave


@pytest.fixture
def pictures_and_masks(tmp_path):
    """in/a/0.png beside masks/a/0.png, and both in one folder, both/0.png and both/0.mask.png."""
    for i in range(5):
        mask = Image.fromarray((wave(i)[..., 0] > 128).astype(np.uint8) * 3)
        for path, image in (
            (tmp_path / "in" / "ab"[i % 2] / f"{i}.png", Image.fromarray(wave(i))),
            (tmp_path / "masks" / "ab"[i % 2] / f"{i}.png", mask),
            (tmp_path / "both" / f"{i}.png", Image.fromarray(wave(i))),
            (tmp_path / "both" / f"{i}.mask.png", mask),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return tmp_path


def mask_of(archive, i, variant=0):
    return np.asarray(lz.decode(archive.read(i, variant, stream="mask"), to="numpy"))


def test_a_picture_and_its_mask(pictures_and_masks):
    base = pictures_and_masks
    options = {"labels": "folders", "mirror": True, "jobs": 1, "shard_samples": 2}
    pack(base / "in", base / "out", CODEC, pairs={"mask": base / "masks"}, **options)
    archive = Archive(base / "out")
    assert archive.streams == ("mask",)
    assert archive.facts("mask")["codec"] == "lossless"
    assert check_pack(base / "out", deep=True).problems == []
    for i, key in enumerate(archive.columns["key"].tolist()):
        seed = int(key.rpartition("/")[2])
        expected = (wave(seed)[..., 0] > 128).astype(np.uint8) * 3
        assert np.array_equal(mask_of(archive, i), expected)
        assert np.array_equal(mask_of(archive, i, 1), expected[:, ::-1])
        assert archive.read(i) == lz.encode(Image.fromarray(wave(seed)), CODEC)
    data = LatentDataset(base / "out", mirror=0.5, streams={"mask": "signal"})
    for batch in LatentStream(data, 2, epochs=1):
        assert batch["mask"].shape == (2, 1, 40, 56)
    assert unpack(base / "out", base / "files") == 5
    with Image.open(base / "files" / "a" / "0.mask.png") as image:
        assert np.array_equal(np.asarray(image), (wave(0)[..., 0] > 128) * 3)
    with pytest.raises(lz.InputError, match="no stream 'depth'; it has mask"):
        LatentDataset(base / "out", streams={"depth": "signal"})
    with pytest.raises(lz.InputError, match="no latents"):
        LatentDataset(base / "out", streams={"mask": "latent"})


def test_pairs_by_the_end_of_their_names(pictures_and_masks):
    base = pictures_and_masks
    pack(base / "both", base / "out", CODEC, pairs={"mask": ".mask.png"}, jobs=1)
    archive = Archive(base / "out")
    assert archive.columns["key"].tolist() == ["0", "1", "2", "3", "4"]
    assert np.array_equal(mask_of(archive, 3), (wave(3)[..., 0] > 128) * 3)
    again = pack(base / "both", base / "out", CODEC, pairs={"mask": ".mask.png"}, jobs=1)
    assert again.made == 0
    with pytest.raises(lz.InputError, match="other files or with other options"):
        pack(base / "both", base / "out", CODEC, jobs=1)


def test_pairs_that_lack_a_partner_or_are_damaged(pictures_and_masks):
    base = pictures_and_masks
    (base / "masks" / "a" / "2.png").write_bytes(b"nothing")
    result = pack(base / "in", base / "out", CODEC, pairs={"mask": base / "masks"}, jobs=1)
    assert (result.samples, result.skipped) == (4, 1)
    (base / "masks" / "b" / "3.png").unlink()
    with pytest.raises(lz.InputError, match=r"mask: b/3\.png has no partner"):
        pack(base / "in", base / "no", CODEC, pairs={"mask": base / "masks"}, jobs=1)
    with pytest.raises(lz.InputError, match="cannot be called 'mirror'"):
        pack(base / "in", base / "no", CODEC, pairs={"mirror": base / "masks"}, jobs=1)
    path = base / "out" / "00000.mask.idx.npy"
    path.write_bytes(path.read_bytes()[:-3])
    assert check_pack(base / "out").problems


def test_a_picture_and_a_sound(tmp_path):
    """Kinds of signal may differ; the partner has a codec and options of its own."""
    for name in ("in", "sounds"):
        (tmp_path / name).mkdir()
    for i in range(3):
        Image.fromarray(wave(i)).save(tmp_path / "in" / f"{i}.png")
        soundfile.write(tmp_path / "sounds" / f"{i}.wav", tone(i, 3000), 8000)
    pair = {"source": tmp_path / "sounds", "codec": "audio", "quality": 30, "channels": "mono"}
    pack(tmp_path / "in", tmp_path / "out", CODEC, size=32, pairs={"clip": pair}, jobs=1, on_error="fail")
    assert check_pack(tmp_path / "out", deep=True).problems == []
    sample = LatentDataset(tmp_path / "out", streams={"clip": "latent"})[1]
    expected = lz.decode(Archive(tmp_path / "out").read(1, stream="clip"), "latent")
    assert torch.equal(sample["clip"], expected)
    assert unpack(tmp_path / "out", tmp_path / "files") == 3
    assert (tmp_path / "files" / "2.clip.wav").is_file()


# --- a loop ------------------------------------------------------------------------------------------------------


def test_activations_of_a_network(tmp_path):
    net = torch.nn.Linear(8, 16)
    torch.manual_seed(0)
    with torch.no_grad():
        features = [net(torch.from_numpy(rows(i))) for i in range(7)]
    with PackWriter(tmp_path / "out", "features", shard_samples=3, columns=("score",), max_error=0.01) as writer:
        for i, x in enumerate(features):
            writer.add(x, label=np.int64(i % 2), score=torch.tensor(i / 4))
    assert writer.result is not None
    assert (writer.result.samples, writer.result.shards) == (7, 3)
    assert check_pack(tmp_path / "out", deep=True).problems == []
    data = LatentDataset(tmp_path / "out", to="signal", columns=("label", "score"))
    for i, x in enumerate(features):
        assert (data[i]["signal"] - x).abs().max() <= 0.01
        assert (int(data[i]["label"]), float(data[i]["score"])) == (i % 2, i / 4)


def test_a_profile_comes_along(tmp_path):
    """Streams of a profile need it: the pack holds it, and a pack that was moved is still whole."""
    features: Any = lz.load_codec("features")
    codec = features.fit([torch.from_numpy(rows(i, (200, 8))) for i in range(4)], nmse=0.01)
    codec.save(tmp_path / "p.safetensors")
    with PackWriter(tmp_path / "out", codec, shard_samples=2) as writer:
        for i in range(5):
            writer.add(rows(i), "xy"[i % 2])
    (tmp_path / "in").mkdir()
    for i in range(5):
        np.save(tmp_path / "in" / f"{i}.npy", rows(i))
    pack(tmp_path / "in", tmp_path / "files", tmp_path / "p.safetensors", jobs=1, shard_samples=2)
    (tmp_path / "p.safetensors").unlink()
    for name in ("out", "files"):
        archive = Archive((tmp_path / name).rename(tmp_path / f"moved {name}"))
        data = LatentDataset(archive.path, to="signal")
        assert archive.manifest["weights"]["file"] == "weights.safetensors"
        assert torch.equal(data[2]["signal"], torch.as_tensor(codec.decode(archive.read(2))))
        assert check_pack(archive.path, deep=True).problems == []
    assert LatentDataset(tmp_path / "moved out", to="signal").classes == ["x", "y"]
    weights = tmp_path / "moved out" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert any("weights.safetensors: its SHA-256" in p for p in check_pack(tmp_path / "moved out").problems)


def test_a_loop_that_was_stopped_goes_on(tmp_path):
    def write(folder, until):
        with PackWriter(tmp_path / folder, "features", shard_samples=2, nmse=0.01) as writer:
            for i in range(writer.done, 7):
                if i == until:
                    raise KeyboardInterrupt
                writer.add(rows(i), i)
        return writer

    write("whole", 99)
    with pytest.raises(KeyboardInterrupt):
        write("out", 5)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out").glob(".*.part"))
    again = write("out", 99)
    assert again.done == 4
    whole, out = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("whole", "out"))
    assert whole == out
    assert write("out", 99).done == 7
    with (
        pytest.raises(lz.InputError, match="other files or with other options"),
        PackWriter(tmp_path / "out", "features", shard_samples=2, nmse=0.1),
    ):
        pass


def twice(path):
    with PackWriter(path, "features") as writer:
        writer.add(rows(0), key="k")
        writer.add(rows(1), key="k")


def test_what_a_writer_refuses(tmp_path):
    with pytest.raises(lz.InputError, match="exclude each other"):
        PackWriter(tmp_path / "a", "features", nmse=0.1, bits=3)
    with PackWriter(tmp_path / "b", "features", columns=("text",)) as writer:
        wrongs: list[dict[str, Any]] = [{"x": np.zeros(3, np.int64), "text": "t"}, {"x": rows(0)}]
        for wrong in [*wrongs, {"x": rows(0), "text": [1]}]:
            with pytest.raises(lz.InputError):
                writer.add(**wrong)
        with pytest.raises(lz.InputError, match="is no label"):
            writer.add(rows(0), 1.5, text="t")  # type: ignore[arg-type]
        writer.add(rows(1), text="only this")
    assert Archive(tmp_path / "b").columns["text"].tolist() == ["only this"]
    with pytest.raises(lz.InputError, match="the key 'k' occurs twice"):
        twice(tmp_path / "c")


def test_pictures_sound_and_several_streams_in_a_loop(tmp_path):
    with PackWriter(tmp_path / "out", {"": CODEC, "clip": "audio", "depth": "features"}, size=24) as writer:
        for i in range(3):
            writer.add({"": Image.fromarray(wave(i)), "clip": (tone(i), 8000), "depth": rows(i)}, label="abc"[i])
        with pytest.raises(lz.InputError, match="streams"):
            writer.add(Image.fromarray(wave(0)), label="a")
    assert check_pack(tmp_path / "out", deep=True).problems == []
    data = LatentDataset(tmp_path / "out", streams={"clip": "signal", "depth": "signal"})
    batch = lz.data.latent_collate(data.__getitems__([0, 2]))
    assert batch["latent"].shape[0] == batch["clip"].shape[0] == 2
    assert np.array_equal(batch["depth"].numpy(), np.stack([rows(0), rows(2)]))


# --- sets of tensors ---------------------------------------------------------------------------------------------


def test_files_of_several_tensors(tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "in").mkdir()
    save_file({"a.weight": rows(1), "b": rows(2).astype(np.float16)}, tmp_path / "in" / "one.safetensors")
    np.savez(tmp_path / "in" / "two.npz", x=rows(3))
    np.save(tmp_path / "in" / "three.npy", rows(4))
    np.save(tmp_path / "in" / "whole.npy", np.arange(5))
    result = pack(tmp_path / "in", tmp_path / "out", "features", jobs=1)
    assert (result.samples, result.skipped) == (4, 1)
    archive = Archive(tmp_path / "out")
    assert archive.columns["key"].tolist() == ["one@a_weight", "one@b", "three", "two"]
    assert archive.columns["dtype"].tolist() == ["float32", "float16", "float32", "float32"]
    data = LatentDataset(tmp_path / "out", to="signal")
    for i, expected in enumerate((rows(1), rows(2).astype(np.float16), rows(4), rows(3))):
        assert np.array_equal(data[i]["signal"].numpy(), expected)
    with pytest.raises(lz.InputError, match="several dtypes"):
        LatentDataset(tmp_path / "out", to="signal", tier="cache")


def test_bfloat16_through_the_training_tier(tmp_path):
    x = [torch.from_numpy(rows(i)).bfloat16() for i in range(4)]
    with PackWriter(tmp_path / "out", "features") as writer:
        for value in x:
            writer.add(value)
    plain = LatentDataset(tmp_path / "out", to="signal", tier="archive")
    tier = LatentDataset(tmp_path / "out", to="signal", tier="cache")
    for i in range(4):
        assert torch.equal(plain[i]["signal"], x[i])
        assert torch.equal(tier[i]["signal"], x[i])


def test_a_loop_writes_sound_without_loss(tmp_path):
    rng = np.random.default_rng(0)
    waves = [(rng.integers(-9000, 9000, (4000 + 10 * i, 2)).astype(np.int16), 16000) for i in range(3)]
    with PackWriter(tmp_path / "out", "lossless", modality="audio", shard_samples=2) as writer:
        for wave in waves:
            writer.add(wave)
    found = LatentDataset(tmp_path / "out", to="signal")
    for i, (samples, _) in enumerate(waves):
        assert np.array_equal(np.rint(found[i]["signal"].numpy().T * 32768), samples)
    with pytest.raises(lz.InputError, match="modality is 'tensor'"):
        PackWriter(tmp_path / "other", "lossless", modality="tensor")
    with pytest.raises(lz.InputError, match="names stream 'mask'"):
        PackWriter(tmp_path / "other", "lossless", modality={"mask": "audio"})


def test_a_window_of_a_picture_and_of_its_mask(pictures_and_masks):
    base = pictures_and_masks
    pack(base / "in", base / "out", CODEC, pairs={"mask": base / "masks"}, mirror=True, jobs=1)
    streams = {"mask": "signal"}
    whole = LatentDataset(base / "out", streams=streams)
    crop = lz.data.transforms.RandomCrop((3, 4), paired={"mask": 8})
    for epoch in range(4):
        data = LatentDataset(base / "out", streams=streams, transform=crop, seed=7)
        data.set_epoch(epoch)
        for i in range(len(data)):
            latent, mask = data[i]["latent"], data[i]["mask"]
            assert (latent.shape[1:], mask.shape) == ((3, 4), (1, 24, 32))
            found = [
                (y, x) for y in range(3) for x in range(4)
                if torch.equal(whole[i]["latent"][:, y : y + 3, x : x + 4], latent)
            ]  # fmt: skip
            assert len(found) == 1
            y, x = (8 * v for v in found[0])
            assert torch.equal(whole[i]["mask"][:, y : y + 24, x : x + 32], mask)
    middle = LatentDataset(
        base / "out", streams=streams, transform=lz.data.transforms.CenterCrop(3, paired={"mask": 8})
    )
    assert torch.equal(middle[0]["mask"], whole[0]["mask"][:, 8:32, 16:40])
    for paired, words in (
        ({"mask": 4}, "samples a latent"),
        ({"depth": 8}, "no stream 'depth'"),
        ({"mask": 0}, "from 1 on"),
    ):
        with pytest.raises(lz.InputError, match=words):
            LatentDataset(base / "out", streams=streams, transform=lz.data.transforms.RandomCrop(3, paired=paired))[0]
