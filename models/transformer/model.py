"""The model, whole: a causal Transformer from the items somebody took to a vector whose products with item vectors are scores.

    x_i  = e_i + type_i                      e_i is the item's vector, the very one that scores: input and output are tied
    x    = blocks(x)                         each place sees itself and what was before it
    u    = norm(x)                           the user, after each of his events
    s_j  = u . e_j

Three blocks, all pre-norm, with a learned bias for how many places lie between two events and, where there is a clock, how much time:

    sasrec   softmax attention and a two-layer network (Kang, McAuley 2018; here GELU, and relative places instead of absolute)
    ligr     the same with a gate on each residual and SwiGLU (Borisyuk et al. 2025)
    hstu     attention by SiLU, each place by itself, gated by a fourth projection, no second network (Zhai et al. 2024)

An item's vector is a row of a table, and where items have text vectors (any encoder's), a matrix times these beside it: so an item
that no training has seen has a vector too.

Heads: `dot` as written; `cosine` with e and u of length 1 and a learned scale (NISER, Gupta et al. 2019), so that how often an
item was trained on does not tell in its length: what is new competes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.transformer.config import ModelConfig

#: Knots of the time bias: powers of two of seconds, up to a century.
N_KNOTS = 33
#: Share of look-ups in training for which an item has its text alone, as a new one will.
TEXT_ALONE = 0.2


class Model(nn.Module):
    """`forward` takes item vectors, not items: whoever asks may give an item a vector that no training has seen."""

    texts: Tensor

    def __init__(self, config: ModelConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(n_items, config.d)
        self.types = nn.Embedding(config.n_types + 1, config.d) if config.n_types else None  # the last is padding's
        self.text = nn.Linear(config.n_text, config.d, bias=False) if config.n_text else None
        self.register_buffer("texts", torch.zeros(n_items, config.n_text) if config.n_text else None)
        self.bias = Bias(config)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(BLOCKS[config.block](config) for _ in range(config.n_blocks))
        self.norm = nn.LayerNorm(config.d)
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale))) if config.head == "cosine" else None
        nn.init.normal_(self.items.weight, std=config.d ** -0.5)  # of length 1, whichever the head
        if self.types is not None:
            nn.init.zeros_(self.types.weight)

    def vectors(self, items: Tensor | None = None) -> Tensor:
        """Vectors of items (...) -> (..., d), or of all, (n, d)."""
        rows: Tensor = self.items.weight if items is None else self.items(items)
        if self.text is not None:
            if self.training:
                rows = rows * (torch.rand(rows.shape[:-1], device=rows.device) >= TEXT_ALONE)[..., None]
            rows = rows + self.text(self.texts if items is None else self.texts[items])
        return self.as_vectors(rows)

    def as_vectors(self, rows: Tensor) -> Tensor:
        """Sums of table and text (..., d) as the head takes them."""
        return F.normalize(rows, dim=-1) if self.log_scale is not None else rows

    def forward(self, vectors: Tensor, types: Tensor, ages: Tensor, visible: Tensor, n_out: int | None = None, distinct: bool = False) -> Tensor:
        """vectors (B, L, d), types (B, L) int64, ages (B, L) seconds, visible (B, L, L) bool -> users (B, n_out, d), the last n_out places'.

        distinct: between two places only those are counted that are seen, as if the others were not there.
        """
        length = vectors.shape[1]
        x = vectors * math.sqrt(self.config.d)  # (B, L, d), about 1 a component
        if self.types is not None:
            x = x + self.types(types)
        x = self.drop(x)
        n_out = length if n_out is None else n_out
        # before the last block every place is a key to later ones; in it only what is asked for is a query
        n_rows = length if len(self.blocks) > 1 else n_out
        bias = self.bias(ages, n_rows, visible if distinct else None)  # (B or 1, H, n_rows, L)
        for n, block in enumerate(self.blocks):
            x = block(x, bias, visible, length if n + 1 < len(self.blocks) else n_out)
        users: Tensor = self.norm(x)  # (B, n_out, d)
        return F.normalize(users, dim=-1) * self.log_scale.exp() if self.log_scale is not None else users


class Bias(nn.Module):
    """What is added to the logits of attention, for all blocks: one number a head and distance, and one a head and time between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(config.n_heads, config.max_len))
        self.times = nn.Parameter(torch.zeros(config.n_heads, N_KNOTS)) if config.time else None

    def forward(self, ages: Tensor, n_rows: int, counted: Tensor | None = None) -> Tensor:
        """ages (B, L), counted (B, L, L) bool -> (B or 1, H, n_rows, L), for the last n_rows places as queries."""
        start = ages.shape[1] - n_rows
        at = torch.arange(ages.shape[1], device=ages.device)
        if counted is None:
            between = (at[start:, None] - at[None, :])[None]  # (1, n_rows, L)
        else:
            between = counted[:, start:].flip(-1).cumsum(-1).flip(-1) - 1  # (B, n_rows, L)
        # rows of a packed batch are longer than max_len, but no window within them is
        bias = self.places[:, between.clamp(0, self.places.shape[1] - 1)].transpose(0, 1)  # (B or 1, H, n_rows, L)
        if self.times is not None:
            # between two knots in a straight line: a bucket would jump by a rounding of the clock
            x = torch.log2(1 + (ages[:, None, :] - ages[:, start:, None]).clamp(min=0)).clamp(max=N_KNOTS - 1.001)  # (B, n_rows, L)
            knot = x.floor().long()
            part = (x - knot)[:, None]
            low, high = self.times[:, knot].transpose(0, 1), self.times[:, knot + 1].transpose(0, 1)  # (B, H, n_rows, L)
            bias = bias + low * (1 - part) + high * part
        return bias


class Attention(nn.Module):
    """Softmax attention of the last n_out places over all that they see."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.query = nn.Linear(config.d, config.d)
        self.key_value = nn.Linear(config.d, 2 * config.d)
        self.out = nn.Linear(config.d, config.d)
        _begin_as_mean(self.key_value, self.out)

    def forward(self, x: Tensor, bias: Tensor, visible: Tensor, n_out: int) -> Tensor:
        start = x.shape[1] - n_out
        q = _heads(self.query(x[:, start:]), self.n_heads)  # (B, H, n_out, d / H)
        k, v = (_heads(part, self.n_heads) for part in self.key_value(x).chunk(2, dim=-1))  # (B, H, L, d / H)
        mask = bias[:, :, -n_out:].masked_fill(~visible[:, None, start:], float("-inf")).to(q.dtype)  # (B, H, n_out, L)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(_joined(y))  # (B, n_out, d)
        return out


class SasrecBlock(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.d
        self.attention, self.drop = Attention(config), nn.Dropout(config.dropout)
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.wide, self.narrow = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor, bias: Tensor, visible: Tensor, n_out: int) -> Tensor:
        y: Tensor = x[:, x.shape[1] - n_out:] + self.drop(self.attention(self.norm_1(x), bias, visible, n_out))
        y = y + self.drop(self.narrow(F.gelu(self.wide(self.norm_2(y)))))  # (B, n_out, d)
        return y


class LigrBlock(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, wide = config.d, config.d * 8 // 3  # three matrices of 8/3 d cost what two of 4 d do
        self.attention, self.drop = Attention(config), nn.Dropout(config.dropout)
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.gate_1, self.gate_2 = nn.Linear(d, d), nn.Linear(d, d)
        self.wide, self.narrow = nn.Linear(d, 2 * wide), nn.Linear(wide, d)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor, bias: Tensor, visible: Tensor, n_out: int) -> Tensor:
        y = x[:, x.shape[1] - n_out:]
        y = y + torch.sigmoid(self.gate_1(y)) * self.drop(self.attention(self.norm_1(x), bias, visible, n_out))
        up, through = self.wide(self.norm_2(y)).chunk(2, dim=-1)  # (B, n_out, 8/3 d)
        out: Tensor = y + torch.sigmoid(self.gate_2(y)) * self.drop(self.narrow(F.silu(up) * through))  # (B, n_out, d)
        return out


class HstuBlock(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.d
        self.n_heads, self.drop = config.n_heads, nn.Dropout(config.dropout)
        self.norm, self.norm_out = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query_gate, self.key_value, self.out = nn.Linear(d, 2 * d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        _begin_as_mean(self.key_value, self.out)

    def forward(self, x: Tensor, bias: Tensor, visible: Tensor, n_out: int) -> Tensor:
        start = x.shape[1] - n_out
        h = self.norm(x)
        q, gate = F.silu(self.query_gate(h[:, start:])).chunk(2, dim=-1)  # (B, n_out, d)
        k, v = (_heads(part, self.n_heads) for part in F.silu(self.key_value(h)).chunk(2, dim=-1))  # (B, H, L, d / H)
        q = _heads(q, self.n_heads)
        seen = visible[:, None, start:]  # (B, 1, n_out, L)
        weights = F.silu(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias[:, :, -n_out:]) * seen  # (B, H, n_out, L)
        y = weights @ v / seen.sum(-1, keepdim=True).clamp(min=1)
        out: Tensor = x[:, start:] + self.drop(self.out(self.norm_out(_joined(y)) * gate))  # (B, n_out, d)
        return out


BLOCKS: dict[str, type[SasrecBlock | LigrBlock | HstuBlock]] = {"sasrec": SasrecBlock, "ligr": LigrBlock, "hstu": HstuBlock}


def _begin_as_mean(key_value: nn.Linear, out: nn.Linear) -> None:
    """Values as they come in, out as they are: a block begins as the mean of the items seen, and a user near what he took.

    Diginetica's first test, 10 passes: R@20 .413 to .441, MRR@20 .180 to .188.
    """
    nn.init.eye_(key_value.weight.data[out.in_features:])
    nn.init.eye_(out.weight)


def visibility(windows: Tensor, again: Tensor | None = None) -> Tensor:
    """windows (B, L), again (B, L) -> (B, L, L) bool: place i sees j of its own window, j <= i; with `again` only the last of each item.

    Padding sees itself: attention over nothing is no number.
    """
    at = torch.arange(windows.shape[1], device=windows.device)
    visible = (windows[:, :, None] == windows[:, None, :]) & (windows >= 0)[:, None, :] & (at[:, None] >= at[None, :])
    if again is not None:
        visible &= again[:, None, :] > at[None, :, None]
    return visible | (at[:, None] == at[None, :])


def _heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, L, d) -> (B, H, L, d / H)"""
    return x.reshape(x.shape[0], x.shape[1], n_heads, -1).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    """(B, H, L, d / H) -> (B, L, d)"""
    return x.transpose(1, 2).flatten(-2)
