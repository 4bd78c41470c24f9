"""Rows of other runs in a rate-distortion table."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
rd: Any = importlib.import_module("bench.rd")


def _row(codec: str, setting: str, image: str, bpp: float = 1.0) -> dict[str, Any]:
    return {"codec": codec, "setting": setting, "image": image, "bpp": bpp, "psnr": 30.0, "ms_ssim": 0.9}


def test_settings_with_every_picture_are_taken_of_codecs_that_were_not_measured(tmp_path):
    other = tmp_path / "overfit.json"
    rows = [_row("overfit effort 1", "q50", t) for t in ("a", "b", "elsewhere")]
    rows += [_row("overfit effort 1", "q20", "a"), _row("jpeg", "50", "a"), _row("jpeg", "50", "b")]
    other.write_text(json.dumps({"rows": rows}))
    found = rd.beside([other], ["a", "b"], [_row("jpeg", "50", "a"), _row("jpeg", "50", "b")])
    assert [(r["codec"], r["setting"], r["image"]) for r in found] == [
        ("overfit effort 1", "q50", "a"), ("overfit effort 1", "q50", "b"),
    ]  # fmt: skip
    assert len(rd.averages(found)) == 1
