"""Every Triton kernel compiles ahead of time for the GPUs it is meant for, in registers alone: no driver needed."""

import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")
ASTSource = pytest.importorskip("triton.compiler").ASTSource
GPUTarget = pytest.importorskip("triton.backends.compiler").GPUTarget
coder = pytest.importorskip("latentzip.entropy.cuda_kernels")


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
TABLE = {"PRECISION": 12, "BUCKET_BITS": 12}
CASES = {
    "decode": (coder.decode_kernel, CODER, {**TABLE, "K": 8, "GROUP": 4, "SEARCH": False, "SIDES": False}, 1),
    "decode-sides": (coder.decode_kernel, CODER, {**TABLE, "K": 8, "GROUP": 4, "SEARCH": False, "SIDES": True}, 1),
    "decode-search": (coder.decode_kernel, CODER, {**TABLE, "K": 64, "GROUP": 1, "SEARCH": True, "SIDES": True}, 2),
    "encode": (coder.encode_kernel, CODER, {"PRECISION": 12, "K": 8, "GROUP": 4, "LAST": True}, 1),
    "sides": (coder.sides_kernel, CODER, {"BLOCK": 256}, 2),
    "estimate": (coder.estimate_kernel, CODER, {"PRECISION": 12, "BLOCK": 256}, 2),
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
    binary = compiled(name, capability)
    used = resources(binary, tmp_path)
    assert used["local"] == 0
    assert used["registers"] <= 255
    assert binary.metadata.shared <= 160 * 1024
