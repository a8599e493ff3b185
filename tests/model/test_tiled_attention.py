import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ownlm.model.tiled_attention import tiled_attention

SHAPES = [
    # batch, heads, kv_heads, time, head_dim: one tile, several of both kinds, and sizes that fill none of them
    (1, 1, 1, 1, 4),
    (2, 8, 8, 128, 16),
    (3, 4, 2, 129, 8),
    (5, 6, 1, 300, 16),
]


def tensors(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    batch, heads, kv_heads, time, head_dim = shape
    generator = torch.Generator().manual_seed(time)
    sizes = [(batch, count, time, head_dim) for count in (heads, kv_heads, kv_heads, heads)]
    return [torch.randn(size, generator=generator).to(dtype) for size in sizes]


def run(function: object, inputs: list[Tensor]) -> list[Tensor]:
    """The output and the gradients of q, k and v."""
    q, k, v = (tensor.clone().requires_grad_() for tensor in inputs[:3])
    out: Tensor = function(q, k, v)  # type: ignore[operator]
    out.backward(inputs[3])  # type: ignore[no-untyped-call]
    return [out.detach(), *(tensor.grad for tensor in (q, k, v) if tensor.grad is not None)]


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_equals_torch(shape: tuple[int, ...]) -> None:
    inputs = tensors(shape, torch.float32)
    for found, expected in zip(run(tiled_attention, inputs), run(reference, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_as_near_to_the_truth_as_torch(shape: tuple[int, ...]) -> None:
    inputs = tensors(shape, torch.bfloat16)
    truth = run(reference, [tensor.double() for tensor in inputs])
    for found, torchs, exact in zip(run(tiled_attention, inputs), run(reference, inputs), truth, strict=True):
        assert found.dtype == torch.bfloat16
        scale = exact.norm() + 1e-3
        ours, theirs = (float((each.double() - exact).norm() / scale) for each in (found, torchs))
        assert ours < max(2 * theirs, 0.02)


def document_starts(batch: int, time: int) -> Tensor:
    """`(batch, time)`: where the document of each position begins; every row has other documents, none falls back."""
    generator = torch.Generator().manual_seed(batch)
    begins = torch.rand(batch, time, generator=generator) < 6 / time
    return torch.where(begins, torch.arange(time), 0).cummax(1).values


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_query_may_not_see_does_not_count(shape: tuple[int, ...], window: int | None) -> None:
    batch, _, _, time, _ = shape
    first = document_starts(batch, time)
    if window:
        first = torch.maximum(first, torch.arange(time) - window + 1)
    places = torch.arange(time)
    mask = ((places >= first[..., None]) & (places <= places[:, None]))[:, None]

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)

    inputs = tensors(shape, torch.float32)
    found = run(lambda q, k, v: tiled_attention(q, k, v, 0.3, first), inputs)
    for ours, expected in zip(found, run(masked, inputs), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_the_derivatives() -> None:
    # 131 queries: two tiles of them, the second one odd.
    q, k, v = (torch.randn(1, 2, 131, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(tiled_attention, (q, k[:, :1], v[:, :1]), fast_mode=True)


def test_the_operator_is_registered_as_torch_asks() -> None:
    from ownlm.model.tiled_attention import _forward

    flat = [torch.randn(17, 130, 4, requires_grad=True) for _ in range(3)]
    torch.library.opcheck(
        _forward, (*flat, None, 0.3), test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def test_non_contiguous_inputs_are_read_right() -> None:
    q, k, v, _ = tensors((2, 2, 2, 30, 8), torch.float32)
    turned = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (q, k, v)]
    torch.testing.assert_close(tiled_attention(*turned), tiled_attention(q, k, v))
