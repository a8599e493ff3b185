"""The shapes that the planner chooses among, from a laptop's minutes to a rack's weeks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ownlm.model.config import DecoderConfig


@dataclass(frozen=True)
class Size:
    """A shape on the planner's ladder; the vocabulary is chosen apart from it."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int

    def config(self, vocabulary: int, context: int) -> DecoderConfig:
        """The decoder of this shape."""
        return DecoderConfig(
            vocabulary, self.layers, self.width, self.heads, self.kv_heads, self.head_dim, self.ffn, context
        )


def wide(width: int) -> Size:
    """A shape of `width` (a multiple of 256, from 1,280 on): heads of 128, and deeper ever more slowly."""
    heads = width // 128
    layers = width // 64 if width <= 2048 else 32 + (width - 2048) // 128
    kv_heads = max(count for count in (1, 2, 4, 8) if heads % count == 0 and heads >= 2 * count)
    return Size(layers, width, heads, kv_heads, 128, 128 * math.ceil(width * 8 / 3 / 128))


LADDER = (
    Size(4, 128, 2, 1, 64, 384),
    Size(4, 192, 3, 1, 64, 512),
    Size(6, 192, 3, 1, 64, 512),
    Size(6, 256, 2, 1, 128, 768),
    Size(6, 384, 3, 1, 128, 1024),
    Size(8, 512, 4, 2, 128, 1408),
    Size(12, 768, 6, 2, 128, 2048),
    Size(16, 1024, 8, 4, 128, 2816),
    *(wide(width) for width in (1280, 1536, 1792, 2048, 2304, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192)),
)
"""Every size is larger than the one before it. The first eight were trained here, the others were not."""
