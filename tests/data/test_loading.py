"""Data sets, streams and transforms on small packs, in this process and in workers."""

import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import tracemalloc
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import latentzip as lz
from latentzip.data.reading import transforms
from latentzip.data.reading.draw import Draw

sys.path.insert(0, str(Path(__file__).parent))
from packs import make_pack, manifest, picture

CODEC = "walloc-rgb-16x"


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """40 pictures of 64 x 64, mirrored twins, several shards, fast coding."""
    folder = tmp_path_factory.mktemp("fixed")
    return make_pack(folder, [(70, 90)] * 40, size=64, mirror=True, coding="fast", shard_samples=16)


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    """18 pictures of three shapes, default coding."""
    folder = tmp_path_factory.mktemp("ragged")
    return make_pack(folder, [(64, 48), (48, 64), (72, 72)] * 6, classes=("x", "y", "z"))


def flat(lists):
    return list(chain.from_iterable(lists))


def batches(stream):
    return [b["index"].tolist() for b in stream]


# --- data set ------------------------------------------------------------------------------------------------------


def test_items_are_what_the_streams_hold(fixed):
    data = lz.data.LatentDataset(fixed)
    assert (len(data), data.latent_shape, data.classes) == (40, (12, 8, 8), ["a", "b"])
    for i in (0, 17, -1):
        item = data[i]
        expected = lz.decode(data.archive.read(i), to="latent")
        assert item["latent"].dtype == torch.int8
        assert torch.equal(item["latent"], expected)
        assert item["label"] == data.archive.columns["label"][i]
        assert item["index"] == i % 40


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_batch_is_its_items(fixed, threads):
    data = lz.data.LatentDataset(fixed, threads=threads, columns=("label", "key"))
    batch = lz.data.latent_collate(data.__getitems__([5, 39, 5, 0, 20]))
    assert batch["latent"].shape == (5, 12, 8, 8)
    assert batch["key"] == [data.archive.columns["key"][i] for i in (5, 39, 5, 0, 20)]
    for row, i in enumerate([5, 39, 5, 0, 20]):
        assert torch.equal(batch["latent"][row], data[i]["latent"])
    assert data.__getitems__([])[:] == []


def test_default_collate_agrees(fixed):
    data = lz.data.LatentDataset(fixed)
    samples = data.__getitems__([1, 2, 3])
    ours, theirs = lz.data.latent_collate(samples), default_collate(list(samples))
    single = lz.data.latent_collate([data[i] for i in (1, 2, 3)])
    for name in ours:
        assert torch.equal(ours[name], theirs[name])
        assert torch.equal(ours[name], single[name])


def test_signals_are_the_decoded_pictures(fixed, ragged):
    for path in (fixed, ragged):
        data = lz.data.LatentDataset(path, to="signal")
        samples = data.__getitems__(list(range(4)))
        for i, sample in enumerate(samples):
            expected = lz.decode(data.archive.read(i), to="tensor", precision="fp32").float()
            assert sample["signal"].shape == expected.shape
            assert (sample["signal"] - expected).abs().max() < 1e-4


def test_bytes_decode_alone(fixed):
    blob = lz.data.LatentDataset(fixed, to="bytes")[3]["bytes"]
    assert lz.inspect(blob).shape == (3, 64, 64)


def test_training_tier_gives_the_same(fixed, ragged, tmp_path):
    for n, path in enumerate((fixed, ragged)):
        archive = lz.data.LatentDataset(path, tier="archive")
        cache = lz.data.LatentDataset(path, tier="cache", cache=tmp_path / str(n))
        assert archive.cache is None
        assert cache.cache is not None
        for a, b in zip(archive.__getitems__([0, 7, 3]), cache.__getitems__([0, 7, 3])):
            assert torch.equal(a["latent"], b["latent"])
    with pytest.raises(lz.InputError, match="tier='archive'"):
        lz.data.LatentDataset(fixed, tier="cache", to="signal")


def test_mirror_takes_the_stored_twin(fixed, ragged):
    plain, always = lz.data.LatentDataset(fixed), lz.data.LatentDataset(fixed, mirror=1.0)
    twin = lz.decode(plain.archive.read(4, variant=1), to="latent")
    assert torch.equal(always[4]["latent"], twin)
    assert not torch.equal(plain[4]["latent"], twin)
    some = lz.data.LatentDataset(fixed, mirror=0.5)
    chosen = [torch.equal(s["latent"], plain[i]["latent"]) for i, s in enumerate(some.__getitems__(range(40)))]
    assert 8 < sum(chosen) < 32
    some.set_epoch(1)
    again = [torch.equal(s["latent"], plain[i]["latent"]) for i, s in enumerate(some.__getitems__(range(40)))]
    assert again != chosen
    with pytest.raises(lz.InputError, match="--mirror"):
        lz.data.LatentDataset(ragged, mirror=0.5)


def test_refusals(fixed):
    with pytest.raises(lz.InputError, match="no column 'colour'; it has"):
        lz.data.LatentDataset(fixed, columns=("colour",))
    with pytest.raises(lz.InputError, match="tier is 'fast'"):
        lz.data.LatentDataset(fixed, tier="fast")  # type: ignore[arg-type]
    with pytest.raises(lz.InputError, match="probability"):
        lz.data.LatentDataset(fixed, mirror=2)
    with pytest.raises(IndexError):
        lz.data.LatentDataset(fixed)[40]


def test_damage_is_named(fixed, tmp_path):
    import shutil

    copy = tmp_path / "pack"
    shutil.copytree(fixed, copy)
    data = lz.data.LatentDataset(copy, tier="archive")
    row = data.archive.offsets[2]
    with open(copy / "00000.tar", "r+b") as file:
        file.seek(int(row["offset"]) + int(row["size"]) - 9)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 255]))
    with pytest.raises(lz.FormatError):
        data.__getitems__([1, 2, 3])


# --- ragged --------------------------------------------------------------------------------------------------------


def test_default_coding_in_one_batch(ragged, tmp_path):
    """Shapes mixed, decoded together where they are alike; a damaged record is named, and the others load."""
    data = lz.data.LatentDataset(ragged, tier="archive")
    order = [*range(18)] * 2
    latents = data.__getitems__(order).columns["latent"]
    for latent, i in zip(latents, order):
        assert torch.equal(latent, lz.decode(data.archive.read(i), to="latent"))
    place = tmp_path / "pack"
    shutil.copytree(ragged, place)
    shard = place / data.archive.manifest["shards"][0]["file"]
    damaged = bytearray(shard.read_bytes())
    offset, size, _ = data.archive.offsets[7].tolist()
    damaged[offset + size - 9] ^= 1
    shard.write_bytes(damaged)
    broken = lz.data.LatentDataset(place, tier="archive")
    with pytest.raises(lz.FormatError, match=r"sample 7: .*checksum of chunk 0"):
        broken.__getitems__(order)
    others = [i for i in order if i != 7]
    assert all(torch.equal(a, latents[i]) for a, i in zip(broken.__getitems__(others).columns["latent"], others))


def test_ragged_latents_need_buckets_or_a_crop(ragged):
    data = lz.data.LatentDataset(ragged)
    assert data.latent_shape is None
    with pytest.raises(lz.InputError, match="bucket=True"):
        lz.data.latent_collate(data.__getitems__(range(18)))
    seen = []
    for batch in lz.data.LatentStream(data, 4, epochs=1, bucket=True, drop_last=False):
        assert batch["latent"].ndim == 4
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(18))
    cropped = lz.data.LatentDataset(ragged, transform=transforms.RandomCrop(5))
    assert lz.data.latent_collate(cropped.__getitems__(range(18)))["latent"].shape == (18, 12, 5, 5)


# --- transforms ----------------------------------------------------------------------------------------------------


def test_random_crop_is_a_window_and_belongs_to_the_sample(fixed):
    data = lz.data.LatentDataset(fixed, seed=5)
    crop = lz.data.LatentDataset(fixed, seed=5, transform=transforms.RandomCrop((4, 6)))
    together = crop.__getitems__([8, 9, 30])
    for i, sample in zip([8, 9, 30], together):
        whole, z = data[i]["latent"], sample["latent"]
        places = [
            (y, x) for y in range(5) for x in range(3) if torch.equal(whole[:, y : y + 4, x : x + 6], z)
        ]  # fmt: skip
        assert len(places) == 1
        assert torch.equal(crop[i]["latent"], z)
    found = {crop[i]["latent"].numpy().tobytes() for i in range(20)}
    assert len(found) == 20
    middle = lz.data.LatentDataset(fixed, transform=transforms.CenterCrop(4))
    assert torch.equal(middle[3]["latent"], data[3]["latent"][:, 2:6, 2:6])
    with pytest.raises(lz.InputError, match="cannot be cropped to 9 x 9"):
        lz.data.LatentDataset(fixed, transform=transforms.RandomCrop(9))[0]


def test_crop_is_exact_inside():
    """The latent of a cropped picture, away from its border, is the crop of the latent."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (160, 160, 3), np.uint8)
    codec = lz.load_codec(CODEC)
    whole = lz.decode(lz.encode(x, codec=CODEC), to="latent")
    part = lz.decode(lz.encode(x[16:144, 16:144], codec=CODEC), to="latent")
    halo = codec.analysis_halo
    assert torch.equal(part[:, halo:-halo, halo:-halo], whole[:, 2 + halo : 18 - halo, 2 + halo : 18 - halo])


def test_mixup_is_the_latent_of_the_mixture():
    codec = lz.load_codec(CODEC)
    rng = np.random.default_rng(1)
    a, b = (torch.from_numpy(np.asarray(picture(i, (64, 64)), np.float32) / 255).permute(2, 0, 1) for i in (1, 2))
    mixed = codec.analysis((0.3 * a + 0.7 * b)[None])
    parts = codec.analysis(torch.stack([a, b]))
    dequantize = lz.data.Dequantize(codec, normalize=False)
    expected, got = dequantize(mixed)[0], torch.tensor([0.3, 0.7]) @ dequantize(parts).flatten(1)
    error = (expected.flatten() - got).std() / expected.std()
    assert error < 0.05  # both are rounded
    x, target = transforms.Mixup(CODEC, classes=3)(dequantize(parts), torch.tensor([0, 2]), rng)
    assert x.shape == (2, 12, 8, 8)
    assert torch.allclose(target.sum(1), torch.ones(2))
    with pytest.raises(lz.InputError, match="Dequantize first"):
        transforms.Mixup(CODEC, classes=3)(parts, torch.tensor([0, 2]))


def test_undeclared_operations_are_refused(fixed, monkeypatch):
    monkeypatch.setattr(type(lz.load_codec(CODEC)), "latent_transforms", frozenset())
    with pytest.raises(lz.UnsupportedError, match="to='signal'"):
        lz.data.LatentDataset(fixed, transform=transforms.RandomCrop(4))
    with pytest.raises(lz.UnsupportedError, match="mixup"):
        transforms.Mixup(CODEC, classes=2)


def test_draw_is_uniform_and_independent():
    draw = Draw(1, 2, np.arange(20000))
    a, b = draw.uniform(), draw.uniform()
    assert abs(a.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    assert abs(np.corrcoef(a[:-1], a[1:])[0, 1]) < 0.03
    assert np.bincount(Draw(1, 3, np.arange(9000)).integers(9), minlength=9).min() > 850
    assert not np.array_equal(a, Draw(2, 2, np.arange(20000)).uniform())
    assert np.array_equal(a[5:7], Draw(1, 2, np.array([5, 6])).uniform())


# --- dequantisation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "quality"), [(CODEC, None), ("walloc-rgb-linear", 30)])
def test_dequantize_is_the_codecs_own(name, quality):
    codec = lz.load_codec(name)
    z = torch.randint(-127, 128, (2, codec.latent_channels, 5, 6), dtype=torch.int8)
    units = lz.data.Dequantize(name, normalize=False, quality=quality)
    assert torch.allclose(units(z), codec.dequantize(z, quality))
    normal = lz.data.Dequantize(codec, quality=quality)
    assert torch.allclose(normal(z) * codec.latent_deviation(), units(z), rtol=1e-5, atol=1e-6)
    assert torch.equal(units(z[:, :3]), units(z)[:, :3])
    copy = pickle.loads(pickle.dumps(normal))
    assert torch.equal(copy(z), normal(z))
    with pytest.raises(lz.InputError, match="integer latents"):
        units(z.float())


# --- streams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 3])
def test_resume_counts_what_was_handed_out(fixed, prefetch):
    def stream():
        return lz.data.LatentStream(fixed, 8, epochs=3, seed=4, prefetch=prefetch)

    whole = batches(stream())
    assert len(whole) == 15 == len(stream())
    assert all(sorted(flat(whole[e : e + 5])) == list(range(40)) for e in (0, 5, 10))
    first, running = [], stream()
    for batch in running:
        first.append(batch["index"].tolist())
        if len(first) == 7:
            break
    state = json.loads(json.dumps(running.state_dict()))
    other = stream()
    other.load_state_dict(state)
    assert first + batches(other) == whole
    assert state["epoch"] == 1
    assert state["step"] == 2


def test_one_loop_an_epoch(fixed):
    stream = lz.data.LatentStream(fixed, 8, epochs=1, seed=4)
    both = batches(stream) + batches(stream)
    assert both == batches(lz.data.LatentStream(fixed, 8, epochs=2, seed=4))


def test_prefetch_thread_ends_with_the_loop(fixed):
    before = threading.active_count()
    for _ in lz.data.LatentStream(fixed, 8):
        break
    assert threading.active_count() == before


def test_memory_is_flat_over_epochs(fixed):
    stream = lz.data.LatentStream(fixed, 8, epochs=1)
    batches(stream)
    tracemalloc.start()
    sizes = []
    for _ in range(6):
        batches(stream)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] - sizes[1] < 50_000


def test_errors_reach_the_loop(fixed):
    def fail(batch, draw):
        raise ValueError("from the transform")

    stream = lz.data.LatentStream(lz.data.LatentDataset(fixed, transform=fail), 8)
    with pytest.raises(ValueError, match="from the transform"):
        next(iter(stream))


def test_stream_refusals(fixed):
    with pytest.raises(lz.InputError, match="rank and world"):
        lz.data.LatentStream(fixed, 8, rank=0)
    with pytest.raises(lz.InputError, match="drop_last=False"):
        lz.data.LatentStream(fixed, 64)
    with pytest.raises(TypeError, match="batches_per_epoch"):
        len(lz.data.LatentStream(fixed, 8))


def test_augmentation_is_the_same_on_any_number_of_ranks(fixed):
    def data():
        return lz.data.LatentDataset(fixed, mirror=0.5, transform=transforms.RandomCrop(5))

    whole = lz.data.LatentStream(data(), 8, epochs=1, seed=2)
    parts = [lz.data.LatentStream(data(), 8, epochs=1, seed=2, rank=r, world=2) for r in range(2)]
    for one, left, right in zip(whole, *parts):
        assert torch.equal(one["latent"], torch.cat([left["latent"], right["latent"]]))


# --- DataLoader ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_with_workers(fixed, method):
    data = lz.data.LatentDataset(fixed, mirror=0.5, transform=transforms.RandomCrop(5))
    sampler = data.sampler(8, seed=3)
    sampler.set_epoch(1)
    context = None if method == "fork" else method
    loader = DataLoader(
        data, batch_sampler=sampler, num_workers=2, collate_fn=lz.data.latent_collate,
        multiprocessing_context=context or "fork",
    )  # fmt: skip
    got = list(loader)
    stream = lz.data.LatentStream(data, 8, seed=3, epochs=1)
    stream.set_epoch(1)
    assert len(got) == 5
    for a, b in zip(got, stream):
        assert torch.equal(a["latent"], b["latent"])
        assert torch.equal(a["label"], b["label"])


def test_stream_under_a_data_loader_loses_nothing(fixed):
    stream = lz.data.LatentStream(fixed, 8, seed=3, epochs=1)
    loader = DataLoader(stream, batch_size=None, num_workers=2)
    epochs = [batches(stream) for _ in range(3)]
    stream.set_epoch(0)
    assert batches(loader) == epochs[0]
    living = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
    assert batches(living) == epochs[0]
    next(iter(living))  # a loop that is left early
    assert batches(living) == epochs[2]


# --- many ranks ----------------------------------------------------------------------------------------------------

_RANK = """
import json, sys
import torch.distributed as dist
import latentzip as lz
dist.init_process_group("gloo")
stream = lz.data.LatentStream(sys.argv[1], 8, epochs=2, seed=6)
seen = [b["index"].tolist() for b in stream]
everyone = [None] * dist.get_world_size()
dist.all_gather_object(everyone, seen)
if dist.get_rank() == 0:
    json.dump(everyone, open(sys.argv[2], "w"))
dist.destroy_process_group()
"""


def test_torchrun_ranks_share_the_global_batches(fixed, tmp_path):
    (tmp_path / "rank.py").write_text(_RANK)
    out = tmp_path / "seen.json"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(tmp_path / "rank.py"), str(fixed), str(out),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = json.loads(out.read_text())
    assert len(ranks) == 2
    whole = batches(lz.data.LatentStream(fixed, 8, epochs=2, seed=6, rank=0, world=1))
    assert [a + b for a, b in zip(*ranks)] == whole
    assert all(not set(a) & set(b) for a, b in zip(*ranks))


# --- start-up and remote -------------------------------------------------------------------------------------------


def test_epoch_over_a_large_index_touches_no_sample(tmp_path):
    """100,000 samples: an epoch's order comes from the index alone, in a bounded number of allocations."""
    from latentzip.data.archive import INDEX_DTYPE, index_name
    from latentzip.data.shards import manifest_bytes, npz_bytes

    each, shards = 5000, []
    for n in range(20):
        index = np.zeros(each, INDEX_DTYPE)
        index["offset"], index["size"] = np.arange(each) * 1024 + 512, 500
        np.save(tmp_path / index_name(f"{n:05d}.tar"), index)
        shards.append({"file": f"{n:05d}.tar", "samples": each, "bytes": each * 1024 + 1024, "sha256": "0" * 64})
    columns = {"key": {"dtype": "str"}, "label": {"dtype": "int64", "classes": None}}
    facts = manifest(CODEC, lz.load_codec(CODEC).fingerprint.hex(), shards, columns=columns)
    (tmp_path / "manifest.json").write_bytes(manifest_bytes(facts))
    (tmp_path / "columns.npz").write_bytes(npz_bytes({"label": np.zeros(100_000, np.int64)}))
    tracemalloc.start()
    data = lz.data.LatentDataset(tmp_path)
    first = next(iter(data.sampler(256)))
    rows = data.archive.offsets[first]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(first) == 256
    assert (rows["size"] == 500).all()
    assert peak < 20e6


def test_remote_pack(fixed):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in fixed.glob("*.*"):
        memory.pipe(f"/loading/{path.name}", path.read_bytes())
    local, remote = lz.data.LatentDataset(fixed), lz.data.LatentDataset("memory://loading")
    assert remote.sampler(8)._window == 64
    for a, b in zip(local.__getitems__([3, 33, 12]), remote.__getitems__([3, 33, 12])):
        assert torch.equal(a["latent"], b["latent"])


def test_lazy_import():
    code = "import sys, latentzip as lz; lz.data; from latentzip.data import Archive; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
