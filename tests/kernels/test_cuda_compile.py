"""Every Triton kernel compiles ahead of time for the GPUs it is meant for, in registers alone: no driver needed."""

import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")
ASTSource = pytest.importorskip("triton.compiler").ASTSource
GPUTarget = pytest.importorskip("triton.backends.compiler").GPUTarget
coder = pytest.importorskip("latentzip.entropy.gpu.kernels")
depthwise = pytest.importorskip("latentzip.kernels.cuda.depthwise")
local_conv = pytest.importorskip("latentzip.kernels.cuda.local_conv")
packet = pytest.importorskip("latentzip.kernels.cuda.packet")
packet1d = pytest.importorskip("latentzip.kernels.cuda.packet1d")
packet_decode = pytest.importorskip("latentzip.kernels.cuda.packet_decode")
packet_encode = pytest.importorskip("latentzip.kernels.cuda.packet_encode")


def signature(kernel, types, constants):
    """Types by argument name; what is in ``constants`` is a constant, what is in neither is an int32."""
    return {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}


CODER = {
    **dict.fromkeys(("words", "order", "lane0", "raw", "escapes", "notes", "out", "rows", "pack", "count"), "*i32"),
    **dict.fromkeys(("state", "ptr", "begin", "phase", "raw_at", "raw_end", "escape_at", "escape_end"), "*i64"),
    **dict.fromkeys(("first", "entries", "before", "every", "part", "seen", "used", "home", "reciprocals"), "*i64"),
    **dict.fromkeys(("raw_first", "escape_first", "source_first", "target_first", "size"), "*i64"),
    **dict.fromkeys(("symbols", "source", "target"), "*i32"),
    "index": "*u8",
    "lut": "*u8",
    "buckets": "*i16",
}
FLOATS = dict.fromkeys(("x", "y", "a", "b", "weight", "bias", "taps"), "*fp32")
PACKET = {
    **FLOATS,
    **dict.fromkeys(("row_kinds", "column_kinds", "row_starts", "column_starts"), "*i32"),
    "latents": "*i8",
    "top": "fp32",
    "slope": "fp32",
}
TILES = {"WRAP": False, "ROWS": 128, "COLUMNS": 128, "CHUNK": 32, "TILE": 64, "LEVELS": 3}
FINE, COARSE = {"SLAB": 32, "PRECISION": "tf32x3"}, {"SLAB": 128, "PRECISION": "tf32"}
ENCODE = {"LATENTS": 16, "COMPAND": True, "BYTES": True, "SHIFT": -0.5, "INVERSE": False}
DECODE = {"values": "*fp32", "shift": "fp32"}
DECODER = {"LATENTS": 64, "LEVELS": 3, "BLOCKS": 16, "TILE": 64, "PRECISION": "tf32x3"}
BLOCKS = {"S": 16, "OUT": 16, "WINDOW": 128, "HELD": 8, "WRAP": False, "BLOCKS": 128, "CHUNK": 32}
HALVES = dict.fromkeys(("x", "weight", "bias", "out", "grad", "grad_x", "grad_weight"), "*bf16")
STRIP = {"SILU": True, "ROWS": 16, "COLUMNS": 32, "CHANNELS": 64}
LOCAL = {"POSITIONS": 64, "GROUP": 8}
LANES = {"K": 8, "GROUP": 4, "SEARCH": False}
ONES = {"channels": 1, "size": 1, "nh": 1, "nw": 1}
STAGES = {"num_stages": 2}
TABLE = {"PRECISION": 12, "BUCKET_BITS": 12}
CASES = {
    "decode": (coder.decode_kernel, CODER, {**TABLE, "K": 8, "GROUP": 4, "SEARCH": False, "SIDES": False}, 1),
    "decode-sides": (coder.decode_kernel, CODER, {**TABLE, "K": 8, "GROUP": 4, "SEARCH": False, "SIDES": True}, 1),
    "decode-search": (coder.decode_kernel, CODER, {**TABLE, "K": 64, "GROUP": 1, "SEARCH": True, "SIDES": True}, 2),
    "encode": (coder.encode_kernel, CODER, {"PRECISION": 12, "K": 8, "GROUP": 4, "LAST": True}, 1),
    "sides": (coder.sides_kernel, CODER, {"BLOCK": 256}, 2),
    "estimate": (coder.estimate_kernel, CODER, {"PRECISION": 12, "BLOCK": 256}, 2),
    "packet": (packet.packet_kernel, PACKET, {**TILES, **FINE, "INVERSE": False}, 4, STAGES),
    "packet-inverse": (packet.packet_kernel, PACKET, {**TILES, **FINE, "INVERSE": True}, 4, STAGES),
    "packet-tf32": (packet.packet_kernel, PACKET, {**TILES, **COARSE, "INVERSE": False}, 4, STAGES),
    "packet-encode": (packet_encode.packet_encode_kernel, PACKET, {**TILES, **FINE, **ENCODE}, 8, STAGES),
    "packet-encode-tf32": (packet_encode.packet_encode_kernel, PACKET, {**TILES, **COARSE, **ENCODE}, 8, STAGES),
    "packet-decode": (packet_decode.packet_decode_kernel, PACKET | DECODE, DECODER, 4, {"num_stages": 1}),
    "packet1d": (packet1d.packet1d_kernel, FLOATS, {**BLOCKS, "PRECISION": "tf32x3", "INVERSE": False}, 4),
    "packet1d-inverse": (packet1d.packet1d_kernel, FLOATS, {**BLOCKS, "PRECISION": "tf32x3", "INVERSE": True}, 4),
    "depthwise": (depthwise.depthwise_kernel, HALVES, STRIP, 8),
    "local": (local_conv.forward_kernel, HALVES, LOCAL, 4),
    "local-channels-last": (local_conv.forward_kernel, HALVES, {**LOCAL, "xc": 1, "wk": 1, "oc": 1}, 4),
    "local-backward": (local_conv.backward_kernel, HALVES, LOCAL, 4),
    # arguments that are 1 are constants to the compiler
    "decode-one": (coder.decode_kernel, CODER, {**TABLE, **LANES, "SIDES": True, "slots": 1, "tables": 1}, 1),
    "packet-one": (packet.packet_kernel, PACKET, {**TILES, **FINE, "INVERSE": True, "nh": 1, "nw": 1}, 4, STAGES),
    "packet-encode-one": (packet_encode.packet_encode_kernel, PACKET, {**TILES, **FINE, **ENCODE, **ONES}, 8, STAGES),
    "gather": (coder.gather_kernel, CODER, {"BLOCK": 256}, 2),
}


def compiled(name, capability):
    kernel, types, constants, warps, *options = CASES[name]
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    source = ASTSource(kernel, signature(kernel, types, constants), constants)
    return triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, **(options[0] if options else {})},
    )


def resources(binary, tmp_path):
    """Registers a thread, and bytes of local memory and stack, from the compiled code."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this Triton brings no cuobjdump")
    path = tmp_path / "kernel.cubin"
    path.write_bytes(binary.asm["cubin"])
    text = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
    assert found, text
    return {k: int(v) for k, v in zip(("registers", "stack", "shared", "local"), found.groups())}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", CASES)
def test_compiles_without_spilling(name, capability, tmp_path):
    if (name, capability) == ("packet-decode", 80):
        pytest.skip("not used below sm_90")
    binary = compiled(name, capability)
    used = resources(binary, tmp_path)
    assert used["local"] == 0
    assert used["stack"] <= 32  # a call of the 64-bit division, or a few registers on sm_80; real spills take hundreds
    assert used["registers"] <= 255
    assert binary.metadata.shared <= 160 * 1024
