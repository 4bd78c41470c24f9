"""Which samples make which batch: the same global batches for any number of ranks, restartable at any batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...entropy.errors import InputError
from ...entropy.numbers import MOST, plain, truth, whole


class BatchIndices(list[int]):
    """Sample numbers of one batch, with the seed and epoch that random transforms of its samples follow."""

    def __init__(self, indices: np.ndarray | list[int] = (), seed: int = 0, epoch: int = 0) -> None:  # type: ignore[assignment]
        super().__init__(np.asarray(indices, np.int64).tolist())
        self.seed, self.epoch = seed, epoch

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchIndices, (list(self), self.seed, self.epoch)


def epoch_order(samples: int, seed: int, epoch: int, starts: np.ndarray | None = None, window: int = 0) -> np.ndarray:
    """A permutation of 0..samples-1.

    Args:
        starts: (shards + 1,) first sample of each shard; needed with a window.
        window: 0 permutes everything; else shards are permuted and samples within `window` shards at a time, so that
            a reader has that many shards open and reads each once.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    if not window:
        return rng.permutation(samples)
    if starts is None:
        raise InputError("a window is counted in shards: hand in where they start")
    shards = rng.permutation(len(starts) - 1)
    parts = []
    for at in range(0, len(shards), window):
        part = np.concatenate([np.arange(starts[s], starts[s + 1]) for s in shards[at : at + window]])
        parts.append(rng.permutation(part))
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


class ElasticBatchSampler:
    """Batch sampler for `torch.utils.data.DataLoader(batch_sampler=...)` and `LatentStream`.

    Epoch e is one permutation, a function of (seed, e), cut into global batches; rank r takes the r-th part of every
    one. So 1, 2, 4 or 8 ranks train on the same global batches, all ranks take the same number of steps, and a run
    may go on with another number of ranks.

    Args:
        samples: how many there are.
        batch_size: of the global batch, over all ranks; a multiple of `world`.
        shuffle: False keeps the order of the pack.
        rank, world: this process and how many there are.
        drop_last: leave out incomplete batches. Otherwise they are dealt out as far as they go, and a rank may get a
            smaller or an empty last batch.
        buckets: (samples,) integers; samples of different buckets never share a batch (latents of different shape).
        starts, window: see `epoch_order`.

    Raises:
        InputError: arguments that do not fit together.

    Example:
        >>> sampler = ElasticBatchSampler(10, batch_size=4, shuffle=False, rank=1, world=2)
        >>> [list(batch) for batch in sampler]
        [[2, 3], [6, 7]]
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        buckets: np.ndarray | None = None,
        starts: np.ndarray | None = None,
        window: int = 0,
    ) -> None:
        batch_size, world = whole("batch_size", batch_size, 1), whole("world", world, 1)
        if (rank := whole("rank", rank)) >= world:
            raise InputError(f"rank {rank} of {world}: rank must lie below world")
        if batch_size % world:
            raise InputError(f"the global batch of {batch_size} does not split evenly over {world} ranks")
        seed, window = whole("seed", seed), whole("window", window)
        shuffle, drop_last = truth("shuffle", shuffle), truth("drop_last", drop_last)
        if buckets is not None and len(buckets) != samples:
            raise InputError(f"{len(buckets)} buckets for {samples} samples")
        if drop_last and 0 < samples < batch_size:
            raise InputError(
                f"{samples} samples make no batch of {batch_size}; use a smaller batch_size or drop_last=False"
            )
        self.samples, self.batch_size, self.shuffle, self.seed = samples, batch_size, shuffle, seed
        self.rank, self.world, self.drop_last = rank, world, drop_last
        self._buckets, self._starts, self._window = buckets, starts, window
        self.epoch, self.step = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration walks through, from its first batch."""
        self.epoch, self.step = whole("epoch", epoch), 0

    def global_batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch over all ranks, each (n,) sample numbers."""
        order = np.arange(self.samples)
        if self.shuffle:
            order = epoch_order(self.samples, self.seed, epoch, self._starts, self._window)
        if self._buckets is None:
            return self._cut(order)
        bucket = self._buckets[order]
        by_bucket = np.argsort(bucket, kind="stable")  # positions in the order
        edges = np.flatnonzero(np.diff(bucket[by_bucket])) + 1
        batches = [batch for part in np.split(by_bucket, edges) for batch in self._cut(part)]
        batches.sort(key=lambda positions: int(positions[-1]))  # as if each went out when it was full
        return [order[positions] for positions in batches]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        size = self.batch_size
        end = len(order) - len(order) % size if self.drop_last else len(order)
        return [order[at : at + size] for at in range(0, end, size)]

    def _share(self, batch: np.ndarray) -> np.ndarray:
        """This rank's part of a global batch."""
        edges = len(batch) * np.arange(self.world + 1) // self.world
        return batch[edges[self.rank] : edges[self.rank + 1]]

    def __iter__(self) -> Iterator[BatchIndices]:
        epoch, first = self.epoch, self.step
        self.step = 0  # the next iteration starts afresh
        for batch in self.global_batches(epoch)[first:]:
            yield BatchIndices(self._share(batch), self.seed, epoch)

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        if self._buckets is None:
            sizes = np.array([self.samples])
        else:
            sizes = np.unique(self._buckets, return_counts=True)[1]
        whole = sizes // self.batch_size if self.drop_last else -(-sizes // self.batch_size)
        return int(whole.sum())

    def state_dict(self, epoch: int | None = None, step: int | None = None) -> dict[str, int]:
        """Where to go on: pass the epoch and how many of its batches the training loop has *used*.

        A DataLoader draws batches ahead, so only the loop knows; `LatentStream` counts by itself.
        """
        return {
            "version": 1,
            "seed": self.seed,
            "epoch": self.epoch if epoch is None else epoch,
            "step": self.step if step is None else step,
            "samples": self.samples,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from `state_dict`, with any number of ranks.

        Raises:
            InputError: the state is of other data, batch size or version.
        """
        if not isinstance(state, Mapping):
            raise InputError(f"no state of a sampler: {state!r:.60} is no dict")
        state = {name: plain(value) for name, value in state.items()}  # what saved it may have made tensors of them
        if state.get("version") != 1:
            raise InputError(f"a sampler state of version {state.get('version')!r}; this release reads 1")
        wrong = {"samples", "batch_size", "seed", "epoch", "step"} - set(state)
        if wrong or any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v <= MOST for v in state.values()):
            raise InputError(f"no state of a sampler: whole numbers from 0 on are needed, not {dict(state)!r:.200}")
        for name in ("samples", "batch_size"):
            if state[name] != getattr(self, name):
                raise InputError(f"the state was saved with {name} = {state[name]}, here it is {getattr(self, name)}")
        if state["step"] > len(self):
            raise InputError(f"the state is at batch {state['step']} of an epoch that has {len(self)}")
        self.seed, self.epoch, self.step = state["seed"], state["epoch"], state["step"]
