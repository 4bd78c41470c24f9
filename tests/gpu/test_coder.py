"""The batched coder of the GPU against the coder of the CPU: the same bytes, the same symbols, the same complaints."""

import numpy as np
import pytest
import torch

from latentzip.entropy import Decoder, Encoder, FormatError, InputError, TableModel, UnsupportedError, ans, frozen_bank
from latentzip.entropy.models import Factorized, Gaussian, Laplace, Uniform

cuda = pytest.importorskip("latentzip.entropy.gpu.coder")


def draw(chunks, n, wild=True, seed=0):
    """Symbols (chunks, n) int32 and tables that mostly fit them; the wild ones have raw bits and escapes."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, 64 if wild else 24, (chunks, n)).astype(np.uint8)
    symbols = np.rint(rng.normal(0, 0.5, (chunks, n)) * 0.11 * 2 ** (index / 5.6)).astype(np.int32)
    if wild:
        symbols[:, -1] = -5000
    if wild and n > 8:
        symbols[0, n // 3 : n // 3 + 3] = 2**31 - 1, -(2**31), 77
    return symbols, index


def on_cpu(parts, streams=None):
    encoder = Encoder(streams)
    for symbols, bank, index in parts:
        encoder.code(symbols, TableModel(bank, index))
    return encoder.finish()


@pytest.mark.parametrize(("streams", "wild"), [(2, True), (4, False), (64, True)])
def test_all_four_pairs(streams, wild, device):
    """Encode on one, decode on the other; bytes are equal, so the pairs are."""
    bank, other = frozen_bank("gaussian"), frozen_bank("laplace")
    n = 21 if streams == 2 else 70
    (a, i), (b, j) = draw(2, n, wild), draw(2, 9, wild, seed=1)
    expected = [on_cpu([(a[c], bank, i[c]), (b[c], other, j[c])], streams) for c in range(2)]
    a_, i_, b_, j_ = (torch.from_numpy(x).to(device) for x in (a, i, b, j))

    encoder = cuda.BatchEncoder(2, streams, device)
    encoder.table(a_, bank, i_)
    encoder.table(b_, other, j_)
    assert encoder.finish() == expected

    decoder = cuda.BatchDecoder(expected, device)
    assert torch.equal(decoder.table(bank, i_), a_)
    assert torch.equal(decoder.table(other, j_), b_)
    decoder.finish()


def test_chunks_of_different_sizes_and_streams(device):
    bank = frozen_bank("gaussian")
    sizes, streams = (21, 1, 70), (2, 1, 8)
    parts = [draw(1, n, seed=n) for n in sizes]
    blobs = [on_cpu([(x[0], bank, i[0])], k) for (x, i), k in zip(parts, streams)]
    index = torch.from_numpy(np.concatenate([i[0] for _, i in parts])).to(device)
    first = torch.tensor([0, 21, 22], device=device)
    decoder = cuda.BatchDecoder(blobs, device)
    out = decoder.table(bank, index, first, torch.tensor(sizes, dtype=torch.int32, device=device))
    decoder.finish()
    assert np.array_equal(out.cpu().numpy(), np.concatenate([x[0] for x, _ in parts]))


def test_counts_on_the_device_leave_the_rest_alone(device):
    bank = frozen_bank("gaussian")
    symbols, index = draw(2, 40, wild=False)
    count = torch.tensor([40, 17], dtype=torch.int32, device=device)
    encoder = cuda.BatchEncoder(2, 4, device)
    encoder.table(*(torch.from_numpy(symbols).to(device), bank, torch.from_numpy(index).to(device)), count=count)
    blobs = encoder.finish()
    assert blobs == [on_cpu([(symbols[c, :n], bank, index[c, :n])], 4) for c, n in enumerate((40, 17))]
    decoder = cuda.BatchDecoder(blobs, device)
    out = decoder.table(bank, torch.from_numpy(index).to(device), count=count).cpu().numpy()
    decoder.finish()
    assert np.array_equal(out[0], symbols[0])
    assert np.array_equal(out[1], np.where(np.arange(40) < 17, symbols[1], 0))


def test_streams_are_chosen_as_on_the_cpu(device):
    """The same estimate from the same samples, across calls with one precision."""
    bank = frozen_bank("laplace", "max")
    symbols, index = draw(1, 20000)
    encoder = cuda.BatchEncoder(1, None, device)
    for part in (slice(0, 100), slice(100, None)):
        encoder.table(
            torch.from_numpy(symbols[:, part]).to(device),
            bank,
            torch.from_numpy(index[:, part].astype(np.int32)).to(device),
        )
    estimate = int(encoder._estimate()[0])
    reference = Encoder()
    reference.code(symbols[0], TableModel(bank, index[0]))
    segments = np.array(reference._segments, np.int64)
    assert estimate == reference._engine.core.estimate_bits(reference._pairs, segments, 4)
    assert ans.choose_log_streams(estimate >> 11) == 1


@pytest.mark.parametrize("profile", ["fine", "max"])
def test_tables_that_are_searched(profile, device):
    bank = frozen_bank("gaussian", profile)
    symbols, index = draw(1, 40)
    blob = on_cpu([(symbols[0], bank, index[0])], 8)
    decoder = cuda.BatchDecoder([blob], device)
    assert np.array_equal(decoder.table(bank, torch.from_numpy(index).to(device)).cpu().numpy(), symbols)
    decoder.finish()


def test_models(device):
    symbols, index = draw(2, 24)
    offset = np.arange(24, dtype=np.int32)
    items = [
        [
            (x, Gaussian(i.reshape(4, 6), offset.reshape(4, 6))),
            (y, Factorized(frozen_bank("laplace"), (3, 4), first=20)),
        ]
        for x, i, y in zip(symbols.reshape(2, 4, 6), index, np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    ]
    expected = []
    for item in items:
        encoder = Encoder(2)
        for x, m in item:
            encoder.code(x, m)
        expected.append(encoder.finish())
    assert cuda.encode_batch([[(torch.from_numpy(x), m) for x, m in item] for item in items], 2, device) == expected
    for row, item in zip(cuda.decode_batch(expected, [[m for _, m in item] for item in items], device), items):
        for got, (x, _) in zip(row, item):
            assert np.array_equal(got.cpu().numpy(), x)


def test_corrupt_chunks_are_named(device):
    bank = frozen_bank("gaussian")
    symbols, index = draw(2, 60)
    blobs = [on_cpu([(symbols[c], bank, index[c])], 4) for c in range(2)]
    bad = bytearray(blobs[1])
    bad[-3] ^= 16

    def decode(second):
        decoder = cuda.BatchDecoder([blobs[0], second], device)
        decoder.table(bank, torch.from_numpy(index).to(device))
        decoder.finish()

    decode(blobs[1])
    with pytest.raises(FormatError, match="chunk 1"):
        decode(bytes(bad))
    with pytest.raises(FormatError, match="chunk 1: an entropy-coded chunk is empty"):
        decode(b"")
    plain = on_cpu([(symbols[1], frozen_bank("laplace"), np.full(60, 60, np.uint8))], 4)
    with pytest.raises(FormatError, match="chunk 1"):
        decode(plain)


def test_index_out_of_range_is_refused(device):
    bank = frozen_bank("gaussian")
    index = torch.full((1, 5), 64, dtype=torch.int32, device=device)
    encoder = cuda.BatchEncoder(1, 1, device)
    encoder.table(torch.zeros_like(index), bank, index)
    with pytest.raises(InputError, match="chunk 0"):
        encoder.finish()
    decoder = cuda.BatchDecoder([on_cpu([(np.zeros(5, np.int32), bank, np.zeros(5, np.uint8))])], device)
    decoder.table(bank, index)
    with pytest.raises(InputError, match="chunk 0"):
        decoder.finish()


def test_what_has_no_body_is_refused(device):
    with pytest.raises(UnsupportedError, match="Uniform has no GPU body"):
        cuda.decode_batch([b"\0"], [[Uniform(0, 255, (4,))]], device)
    encoder = cuda.BatchEncoder(1, None, device)
    bank, index = frozen_bank("gaussian"), torch.zeros(1, 4, dtype=torch.uint8, device=device)
    with pytest.raises(InputError, match="round them"):
        encoder.table(torch.zeros(1, 4, device=device), bank, index)
    with pytest.raises(InputError, match="shape"):
        encoder.table(torch.zeros(1, 3, dtype=torch.int32, device=device), bank, index)
    with pytest.raises(InputError, match="bank"):
        cuda.decode_batch([b"\0", b"\0"], [[Gaussian(index[0])], [Laplace(index[0])]], device)


def test_malformed_escapes_are_refused():
    assert cuda._escape_values(ans.leb128(np.array([0, 1, 2, 300, 2**32 - 1], np.uint32))).tolist() == [
        0, -1, 1, 150, -(2**31),
    ]  # fmt: skip
    for data in (b"\x80", b"\x80\x00", b"\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x1f"):
        with pytest.raises(FormatError, match="malformed"):
            cuda._escape_values(data)


@pytest.mark.hardware
@pytest.mark.parametrize("streams", [None, 32])
def test_large_batches(streams):
    bank = frozen_bank("gaussian")
    symbols, index = draw(16, 50_000)
    expected = [on_cpu([(symbols[c], bank, index[c])], streams) for c in range(16)]
    encoder = cuda.BatchEncoder(16, streams)
    x, i = torch.from_numpy(symbols).cuda(), torch.from_numpy(index).cuda()
    encoder.table(x, bank, i)
    assert encoder.finish() == expected
    decoder = cuda.BatchDecoder(expected)
    assert torch.equal(decoder.table(bank, i), x)
    decoder.finish()
    for c in (0, 15):
        cpu = Decoder(expected[c])
        assert np.array_equal(cpu.code(None, TableModel(bank, index[c])), symbols[c])
