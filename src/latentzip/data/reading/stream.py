"""An endless or counted run through a packed data set: batches from a background thread, restartable to the batch."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ...api import device_of
from ...entropy.errors import InputError
from ...entropy.numbers import whole
from .collate import latent_collate
from .dataset import LatentDataset


class LatentStream(IterableDataset[dict[str, Any]]):
    """Batches of a pack as dicts of tensors, shuffled anew every epoch and read ahead by a thread.

    Loop over it directly: reading and entropy decoding release the GIL, so a thread is enough and nothing is copied
    between processes. A new loop goes on where the last one ended: with ``epochs=1`` each is one epoch. Under
    ``DataLoader(stream, batch_size=None, num_workers=n)`` every worker takes each n-th batch of its rank, and the
    loader gives them in the same order.

    Args:
        data: a `LatentDataset`, or the path of a pack.
        batch_size: of the global batch, over all ranks.
        epochs: how many to yield in one iteration; None never ends.
        seed: of order, mirror and transforms.
        shuffle, drop_last, bucket, window, rank, world: as `LatentDataset.sampler`.
        prefetch: batches read ahead; 0 reads in the caller's thread.
        device: where tensors are sent by the prefetch thread; None leaves them on the CPU.

    Example:
        >>> stream = lz.data.LatentStream("mypack", 256, epochs=10)                    # doctest: +SKIP
        >>> for batch in stream:                                                       # doctest: +SKIP
        ...     loss = step(batch["latent"], batch["label"])
        ...     torch.save(stream.state_dict(), "state.pt")   # go on after this very batch
    """

    def __init__(
        self,
        data: LatentDataset | str | os.PathLike[str],
        batch_size: int,
        *,
        epochs: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        bucket: bool = False,
        window: int | None = None,
        rank: int | None = None,
        world: int | None = None,
        prefetch: int = 4,
        device: str | torch.device | None = None,
    ) -> None:
        if (rank is None) != (world is None):
            raise InputError("rank and world belong together: give both or none")
        prefetch, epochs = whole("prefetch", prefetch), None if epochs is None else whole("epochs", epochs, 1)
        device = None if device is None else device_of(device)
        self.data = data if isinstance(data, LatentDataset) else LatentDataset(data)
        place = {} if rank is None else {"rank": rank, "world": world}
        self.sampler = self.data.sampler(
            batch_size, bucket=bucket, window=window, shuffle=shuffle, drop_last=drop_last, seed=seed, **place
        )
        if len(self.sampler) == 0:
            raise InputError(
                f"no batch of {batch_size} comes together from {len(self.data)} samples; use a smaller batch_size or "
                "drop_last=False"
            )
        self.epochs, self.prefetch, self.device = epochs, prefetch, device
        self._epoch, self._step = 0, 0
        self._over = False  # whether a loaded state is that after the last batch: the next loop has none

    @property
    def batches_per_epoch(self) -> int:
        """How many batches a whole epoch has, the same on every rank."""
        return len(self.sampler)

    def __len__(self) -> int:
        """Batches of one loop from the start, all its epochs together."""
        if self.epochs is None:
            raise TypeError("an endless LatentStream has no length; see batches_per_epoch")
        return self.epochs * len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; loops under a DataLoader with workers need it before every one.

        Not with ``persistent_workers=True``, which it does not reach: each of their loops is the next epoch.
        """
        self._epoch, self._step, self._over = whole("epoch", epoch), 0, False

    def state_dict(self) -> dict[str, int]:
        """Where to go on: after the last batch that was handed out, whatever was read ahead.

        It holds four integers, is the same on all ranks, and fits any number of them. Under a DataLoader with workers
        the batches are counted in other processes: use `LatentDataset.sampler` and its own state there.
        """
        return self.sampler.state_dict(self._epoch, self._step)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from `state_dict`; the next iteration begins with the batch that would have come next.

        Of a state after the last of several epochs that iteration has no batch, as it was all done.

        Raises:
            InputError: the state is of other data or of another batch size.
        """
        self.sampler.load_state_dict(state)
        self._epoch, self._step = self.sampler.epoch, self.sampler.step
        # with one epoch a loop is one epoch, and the next one is due
        self._over = self.epochs is not None and self.epochs > 1 and self._step == 0 and self._epoch > 0
        self._over = self._over and self._epoch % (self.epochs or 1) == 0

    def _plan(self, epoch: int, step: int, worker: int = 0, workers: int = 1) -> Iterator[tuple[Any, int, int]]:
        """(indices, epoch, step after it) of every batch of a loop that begins there."""
        last = self._last(epoch)
        number = 0
        while last is None or epoch < last:
            self.sampler.epoch, self.sampler.step = epoch, step
            for indices in self.sampler:
                step += 1
                if number % workers == worker:
                    yield indices, epoch, step
                number += 1
            epoch, step = epoch + 1, 0

    def _last(self, epoch: int) -> int | None:
        """The first epoch after a loop."""
        return None if self.epochs is None else epoch - epoch % self.epochs + self.epochs

    def _load(self, indices: Any) -> dict[str, Any]:
        batch = latent_collate(self.data.__getitems__(indices))
        if self.device is None:
            return batch
        device = torch.device(self.device)
        return {name: _send(values, device) for name, values in batch.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._over:
            self._over = False
            return
        info, begin = get_worker_info(), (self._epoch, self._step)
        if info is not None:
            # a worker that lives on begins its next loop where the others do, however far each of them came in this one
            self._epoch, self._step = self._last(self._epoch) or self._epoch + 1, 0
            for batch, _, _ in self._ahead(self._plan(*begin, info.id, info.num_workers)):
                yield batch
            return
        for batch, epoch, step in self._ahead(self._plan(*begin)):
            # an epoch's last batch leaves the state at the start of the next one
            self._epoch, self._step = (epoch, step) if step < len(self.sampler) else (epoch + 1, 0)
            yield batch

    def _ahead(self, plan: Iterator[tuple[Any, int, int]]) -> Iterator[tuple[dict[str, Any], int, int]]:
        if self.prefetch == 0:
            for indices, epoch, step in plan:
                yield self._load(indices), epoch, step
            return
        ready: queue.Queue[Any] = queue.Queue(self.prefetch)
        stop = threading.Event()

        def put(item: Any) -> bool:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for indices, epoch, step in plan:
                    if not put((self._load(indices), epoch, step)):
                        return
                put(None)
            except BaseException as error:  # whatever it is, the loop has to see it
                put(error)

        thread = threading.Thread(target=work, name="latentzip-prefetch", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()


def _send(values: Any, device: torch.device) -> Any:
    if not isinstance(values, Tensor):
        return values
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
