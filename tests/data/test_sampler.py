"""Order of samples: the same for any number of ranks, restartable, quick and flat in memory."""

import gc
import pickle
import tracemalloc
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from latentzip.data.reading.sampler import BatchIndices, ElasticBatchSampler, epoch_order
from latentzip.entropy import InputError


def flat(lists):
    return list(chain.from_iterable(lists))


def walk(sampler):
    return [list(batch) for batch in sampler]


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("drop_last", [True, False])
def test_same_global_batches_for_any_number_of_ranks(world, drop_last):
    options = {"seed": 3, "drop_last": drop_last}
    whole = ElasticBatchSampler(1000, 64, **options)
    whole.set_epoch(2)
    ranks = [ElasticBatchSampler(1000, 64, rank=r, world=world, **options) for r in range(world)]
    for sampler in ranks:
        sampler.set_epoch(2)
    parts = [walk(sampler) for sampler in ranks]
    assert {len(p) for p in parts} == {len(whole)}
    assert [flat(p[t] for p in parts) for t in range(len(whole))] == walk(whole)


def test_an_epoch_is_every_sample_once():
    seen = flat(walk(ElasticBatchSampler(103, 10, drop_last=False)))
    assert sorted(seen) == list(range(103))
    assert seen != list(range(103))
    assert flat(walk(ElasticBatchSampler(103, 10, shuffle=False))) == list(range(100))


def test_epochs_and_seeds_differ_and_repeat():
    a, b = ElasticBatchSampler(50, 5, seed=1), ElasticBatchSampler(50, 5, seed=2)
    first = walk(a)
    a.set_epoch(1)
    assert walk(a) != first
    assert walk(b) != first
    a.set_epoch(0)
    assert walk(a) == first


def test_resume_with_another_number_of_ranks():
    a = ElasticBatchSampler(1000, 40, seed=9, rank=1, world=2)
    a.set_epoch(3)
    state = a.state_dict(epoch=3, step=7)
    rest = []
    for rank in range(4):
        b = ElasticBatchSampler(1000, 40, rank=rank, world=4)
        tensors: Any = {name: torch.tensor(value) for name, value in state.items()}  # as some savers make of it
        b.load_state_dict(tensors)
        rest.append(walk(b))
        assert len(walk(b)) == 25  # the next epoch is whole again
    whole = ElasticBatchSampler(1000, 40, seed=9)
    whole.set_epoch(3)
    assert [flat(r[t] for r in rest) for t in range(18)] == walk(whole)[7:]


def test_state_of_other_data_is_refused():
    state = ElasticBatchSampler(100, 10).state_dict()
    with pytest.raises(InputError, match="samples = 100"):
        ElasticBatchSampler(101, 10).load_state_dict(state)
    with pytest.raises(InputError, match="batch_size = 10"):
        ElasticBatchSampler(100, 20).load_state_dict(state)
    with pytest.raises(InputError, match="version 7"):
        ElasticBatchSampler(100, 10).load_state_dict(state | {"version": 7})


def test_window_keeps_few_shards_open():
    starts = np.arange(0, 2001, 100)
    order = epoch_order(2000, 0, 0, starts, window=4)
    assert sorted(order) == list(range(2000))
    for at in range(0, 2000, 400):
        assert len(np.unique(order[at : at + 400] // 100)) == 4
    assert len(np.unique(epoch_order(2000, 0, 0)[:400] // 100)) == 20
    with pytest.raises(InputError, match="where they start"):
        epoch_order(10, 0, 0, window=2)


@pytest.mark.parametrize("world", [1, 2])
def test_buckets_are_never_mixed(world):
    buckets = np.random.default_rng(0).integers(0, 3, 500)
    seen = []
    for rank in range(world):
        sampler = ElasticBatchSampler(500, 16, buckets=buckets, drop_last=False, rank=rank, world=world)
        batches = walk(sampler)
        assert len(batches) == len(sampler)
        for batch in batches:
            assert len(set(buckets[batch].tolist())) <= 1
        seen += flat(batches)
    assert sorted(seen) == list(range(500))
    kinds = [int(buckets[b[0]]) for b in walk(ElasticBatchSampler(500, 16, buckets=buckets))]
    assert kinds != sorted(kinds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10, "world": 4}, "evenly"),
        ({"batch_size": 8, "rank": 2, "world": 2}, "rank must lie below"),
        ({"batch_size": 200}, "smaller batch_size"),
        ({"batch_size": 8, "seed": -1}, "negative"),
        ({"batch_size": 8, "buckets": np.zeros(3)}, "3 buckets"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        ElasticBatchSampler(100, **options)


def test_indices_travel_with_seed_and_epoch():
    batch = pickle.loads(pickle.dumps(BatchIndices([3, 1], 5, 6)))
    assert (batch, batch.seed, batch.epoch) == ([3, 1], 5, 6)


def test_memory_is_flat_over_epochs():
    sampler = ElasticBatchSampler(200_000, 256)
    for _ in sampler:
        pass
    gc.collect()
    tracemalloc.start()
    sizes = []
    for epoch in range(1, 5):
        sampler.set_epoch(epoch)
        for _ in sampler:
            pass
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(sizes) < 100_000
