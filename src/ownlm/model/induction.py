"""An induction circuit written into fresh weights: two heads that copy what followed the same token before.

Olsson et al. 2022 (arXiv 2209.11895) find this circuit in every trained Transformer: a head of one layer looks at the
previous token, a head of the next finds the place whose previous token is the present one, and copies from there. It
forms late, after more text than a small budget reads. Written in at the start it is there from the first step, and
training sharpens it (figures in docs/experiments/001-demo-model.md). Only weights change: the model stays one of its
family, and every weight goes on being trained.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ownlm.model.attention import Attention

if TYPE_CHECKING:
    from ownlm.model.decoder import Decoder

PREVIOUS_PEAK, MATCH_PEAK = 12.0, 16.0
"""What the two heads' scores come to where they look; softmax then leaves little for the other places."""
PREDECESSOR = 0.35
"""How strongly a token's predecessor is written beside it, as a share of the embeddings' deviation."""
COPY = 5.0
"""How strongly the copied token's projection is written on the stream, in the same measure."""


def can_hold_induction(decoder: Decoder) -> bool:
    """Two layers of plain rotary attention, heads narrower than the stream, and norms on each head's queries and keys.

    The norms set how sharply the heads look.
    """
    config = decoder.config
    plain = config.qk_norm == "head" and config.norm == "rms" and not config.norm_offset and config.norms == "pre"
    turning = config.rope is not None and config.rope.share == 1 and not {0, 1} & set(config.layers_without_rope)
    return config.layers >= 2 and config.head_dim < config.width and plain and turning


@torch.no_grad()
def write_induction(decoder: Decoder, generator: torch.Generator) -> None:
    """Writes the circuit into head 0 of the first two layers and a direction that all tokens share into column 0.

    The embeddings must be drawn already; their deviation sets the scale.
    """
    config, embeddings = decoder.config, decoder.embed_tokens.weight
    width, size = config.width, config.head_dim
    deviation = float(embeddings.std())
    embeddings[:, 0] = deviation * math.sqrt(width)
    # The head must not see what all tokens share: as a large, coherent input it would drive their biases apart.
    decoder.norm.get_parameter("weight")[0] = 0.0
    read, write = _orthonormal(size, width, generator), _orthonormal(size, width, generator)
    _look_at_previous(decoder, read, PREDECESSOR * deviation * write)
    _look_for_the_same(decoder, read, write, _orthonormal(size, width, generator), COPY * deviation)


def _look_at_previous(decoder: Decoder, read: Tensor, write: Tensor) -> None:
    """Layer 0: a query that fits keys one position back, whatever the token; writes what it reads there.

    Query and key are a constant in the fastest rotary planes, the key's turned forward by one position.
    """
    size = decoder.config.head_dim
    planes = max(2, size // 16)
    angles = _frequencies(decoder)[:planes]
    query, key = torch.zeros(size), torch.zeros(size)
    query[:planes] = 1.0
    key[:planes], key[size // 2 : size // 2 + planes] = angles.cos(), angles.sin()
    attention = _attention(decoder, 0)
    for projection, direction in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight[:size] *= 0.1
        projection.weight[:size, 0] = 2.0 * direction
    attention.v_proj.weight[:size] = read
    attention.o_proj.weight[:, :size] = write.T
    _sharpen(attention, PREVIOUS_PEAK)


def _look_for_the_same(decoder: Decoder, read: Tensor, write: Tensor, copied: Tensor, scale: float) -> None:
    """Layer 1: this token's projection is the query, another's predecessor the key; copies that other token.

    It matches on the rotary planes that turn too little within the context to matter.
    """
    config = decoder.config
    size, half = config.head_dim, config.head_dim // 2
    slow = (_frequencies(decoder) * config.context <= 5.0).repeat(2)[: 2 * half]
    attention = _attention(decoder, 1)
    for projection, matrix in ((attention.q_proj, read), (attention.k_proj, write)):
        projection.weight[:size] = matrix * slow[:, None]
    attention.v_proj.weight[:size] = copied
    attention.o_proj.weight[:, :size] = scale * copied.T
    _sharpen(attention, MATCH_PEAK)


def _frequencies(decoder: Decoder) -> Tensor:
    rope = decoder.config.rope
    assert rope is not None  # `can_hold_induction` asked
    return rope.frequencies(decoder.config.head_dim)


def _attention(decoder: Decoder, layer: int) -> Attention:
    attention: Attention = decoder.layers[layer].self_attn  # type: ignore[assignment]
    return attention


def _sharpen(attention: Attention, peak: float) -> None:
    """Normalised queries and keys that agree score `sqrt(head_dim)` times the query norm's weight."""
    for weight in attention.q_norm.parameters():
        weight.fill_(peak / math.sqrt(attention.config.head_dim))


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """`(rows, columns)` with orthonormal rows, blind to column 0, which holds what all tokens share."""
    matrix: Tensor = torch.linalg.qr(torch.randn(columns, rows, generator=generator))[0].T.clone()
    matrix[:, 0] = 0
    return matrix
