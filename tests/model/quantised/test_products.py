"""Both ways of multiplying by quantised weights against `x @ dense().T`, and what the codes themselves say."""

import threading

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ownlm.model.layers import Embedding, Linear
from ownlm.model.quantised import QuantisedEmbedding, QuantisedLinear, Scheme, int4, int8, kernels, quantise_module
from ownlm.model.quantised import scratch as scratch_module

SCHEMES = ("int8", "int4:32", "int4:64", "int4:128")
SHAPES = ((128, 64), (256, 200), (64, 33))
"""(inputs, outputs): whole blocks of the kernels, and rows that fill none."""
PACKED, DEQUANTISED = 1000, 0


def linear(inputs: int, outputs: int, bias: bool = False, seed: int = 0) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    made = Linear(inputs, outputs, bias)
    torch.nn.init.normal_(made.weight, generator=generator)
    if made.bias is not None:
        torch.nn.init.normal_(made.bias, generator=generator)
    return made


def quantised(scheme: str, inputs: int = 128, outputs: int = 200, bias: bool = False) -> QuantisedLinear:
    made = quantise_module("layer", linear(inputs, outputs, bias), Scheme.parse(scheme))
    assert isinstance(made, QuantisedLinear)
    return made


def inputs_of(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def off(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((found.detach().double() - wanted.detach()).abs().max() / wanted.detach().abs().max())


def test_the_packed_kernels_are_there() -> None:
    """Where this fails the library still works, and dequantises for every product: worth knowing."""
    assert kernels.int8_works() and kernels.int4_block() in (32, 64)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_ways_agree_with_the_dense_weight(scheme: str, shape: tuple[int, int]) -> None:
    layer = quantised(scheme, *shape, bias=True)
    weight, bias = layer.dense(torch.float64), layer.bias
    assert bias is not None
    for dtype, bound in ((torch.float32, 2e-6), (torch.bfloat16, 1.2e-2)):
        for rows in (1, 2, 3, 4, 5, 9):
            x = inputs_of(rows, shape[0], dtype=dtype)
            wanted = x.double() @ weight.T + bias.detach().to(dtype).double()
            for layer.packed_rows in (PACKED, DEQUANTISED):
                found = layer(x)
                assert found.dtype is dtype and found.shape == wanted.shape
                assert off(found, wanted) < bound


@pytest.mark.parametrize("scheme", ["int8", "int4:64"])
def test_the_bfloat16_product_is_as_good_as_that_of_dense_weights(scheme: str) -> None:
    layer = quantised(scheme, 512, 256)
    x, weight = inputs_of(4, 512, dtype=torch.bfloat16), layer.dense(torch.float64)
    wanted = x.double() @ weight.T
    plain = functional.linear(x, weight.to(torch.bfloat16)).double() - wanted
    for layer.packed_rows in (PACKED, DEQUANTISED):
        assert (layer(x).double() - wanted).norm() < 1.3 * plain.norm()


def test_packed_kernels_are_used_for_few_rows_in_bfloat16_only(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, seen, widened = quantised("int8"), [], int8._widened
    monkeypatch.setattr(int8, "_widened", lambda codes, dtype: seen.append(dtype) or widened(codes, dtype))
    layer.packed_rows = 4
    for rows, dtype in ((4, torch.bfloat16), (5, torch.bfloat16), (1, torch.float32)):
        seen.clear()
        layer(inputs_of(rows, 128, dtype=dtype))
        assert bool(seen) == (rows > 4 or dtype is torch.float32)


@pytest.mark.parametrize("scheme", ["int8", "int4:32"])
def test_without_the_private_kernels_the_answer_is_the_same(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs_of(2, 128, dtype=torch.bfloat16)
    wanted = quantised(scheme)(x)
    monkeypatch.delattr(torch, "_weight_int8pack_mm")
    monkeypatch.setattr(kernels, "_agrees", lambda *_: False)
    try:
        kernels.int8_works.cache_clear(), kernels.int4_block.cache_clear()
        assert not kernels.int8_works() and kernels.int4_block() is None
        found = quantised(scheme)(x)
    finally:
        monkeypatch.undo()
        kernels.int8_works.cache_clear(), kernels.int4_block.cache_clear()
    assert off(found, wanted.double()) < 1.2e-2 and kernels.int8_works()


def test_a_probe_finds_a_kernel_that_multiplies_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch._weight_int8pack_mm
    monkeypatch.setattr(torch, "_weight_int8pack_mm", lambda x, codes, scales: right(x, codes, scales) * 1.1)
    kernels.int8_works.cache_clear()
    assert not kernels.int8_works()
    monkeypatch.undo()
    kernels.int8_works.cache_clear()


def test_inputs_that_fill_no_vector_are_never_given_to_the_int8_kernel() -> None:
    layer = quantised("int8", inputs=50)
    layer.packed_rows = PACKED
    x = inputs_of(1, 50, dtype=torch.bfloat16)
    assert not int8.packs(x, layer.codes) and int8.packs(x, quantised("int8").codes)
    assert off(layer(x), x.double() @ layer.dense(torch.float64).T) < 1.2e-2


@pytest.mark.parametrize("scheme", ["int8", "int4:32"])
def test_the_layout_for_avx2_works_too(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = quantised(scheme).dense()
    monkeypatch.setattr(int4, "block_rows", lambda: 32)
    layer = quantised(scheme)
    layer.packed_rows = DEQUANTISED
    assert torch.equal(layer.dense(), wanted)
    x = inputs_of(3, 128)
    assert off(layer(x), x.double() @ wanted.double().T) < 2e-6
    assert torch.equal(embedding(scheme)(torch.arange(200)), embedding(scheme).dense())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_buffer_smaller_than_the_weight_gives_the_same(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = quantised(scheme, 128, 500)
    layer.packed_rows = DEQUANTISED
    x, grad = inputs_of(7, 128), inputs_of(7, 500)
    whole, back = layer(x), backward(layer, x, grad)
    for module in (int8, int4, scratch_module):
        monkeypatch.setattr(module, "ELEMENTS", 128 * 128)
    monkeypatch.setattr(scratch_module.blocks, "__defaults__", (128 * 128,))
    assert len(list(scratch_module.blocks(500, 128, 64))) == 4
    assert off(layer(x), whole.double()) < 2e-6
    assert off(backward(layer, x, grad), back.double()) < 2e-6
    assert torch.equal(layer.dense(), quantised(scheme, 128, 500).dense())


def backward(layer: QuantisedLinear, x: Tensor, grad: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    layer(x).backward(grad)
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_gradient_is_that_of_the_dense_weight(scheme: str) -> None:
    layer = quantised(scheme, bias=True)
    x, grad = inputs_of(2, 5, 128), inputs_of(2, 5, 200, seed=2)
    found = backward(layer, x, grad)
    plain = x.clone().requires_grad_()
    functional.linear(plain, layer.dense(), layer.bias).backward(grad)
    assert plain.grad is not None and off(found, plain.grad.double()) < 2e-6
    assert layer.bias is not None and layer.bias.grad is not None  # biases stay trainable
    narrow = backward(layer, x.to(torch.bfloat16), grad.to(torch.bfloat16))
    assert narrow.dtype is torch.bfloat16 and off(narrow, plain.grad.double()) < 2e-2


def test_gradcheck_and_the_operator_tests_of_torch() -> None:
    layer = quantised("int4:32", 64, 40)
    x = inputs_of(3, 64).requires_grad_()
    arguments = (x, layer.codes, layer.scales, 40, DEQUANTISED)
    torch.library.opcheck(torch.ops.ownlm.quantised_linear.default, arguments)
    assert torch.autograd.gradcheck(lambda x: layer(x), (x.double(),))


def test_a_compiled_layer_gives_the_same() -> None:
    layer = quantised("int4:64", bias=True)
    x = inputs_of(2, 3, 128).requires_grad_()
    found = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(found, layer(x))


@pytest.mark.parametrize("scheme", ["int8", "int4:64"])
def test_the_product_does_not_depend_on_threads_or_on_what_the_buffer_held(scheme: str) -> None:
    layer, other = quantised(scheme, 256, 640), quantised(scheme, 512, 900)
    threads = torch.get_num_threads()
    try:
        for rows, dtype in ((1, torch.bfloat16), (4, torch.bfloat16), (9, torch.bfloat16), (9, torch.float32)):
            x, found = inputs_of(rows, 256, dtype=dtype), []
            for count in (1, 2, 1):
                torch.set_num_threads(count)
                for layer.packed_rows in (PACKED, DEQUANTISED):
                    other(inputs_of(rows + 40, 512, dtype=dtype))
                    found.append(layer(x))
            assert torch.equal(found[0], found[4]) and torch.equal(found[1], found[5])
            if dtype is torch.bfloat16:  # torch's own fp32 product of 9 rows depends on the number of threads
                assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    finally:
        torch.set_num_threads(threads)


def test_a_row_does_not_depend_on_its_neighbours_in_the_packed_kernels() -> None:
    for scheme in ("int8", "int4:64"):
        layer = quantised(scheme, 256, 640)
        layer.packed_rows = PACKED
        x = inputs_of(4, 256, dtype=torch.bfloat16)
        assert all(torch.equal(layer(x)[row], layer(x[row : row + 1])[0]) for row in range(4))


def test_two_threads_may_compute_at_the_same_time() -> None:
    layers = [quantised("int4:32", 128, 500), quantised("int8", 256, 700)]
    given = [inputs_of(8, layer.inputs) for layer in layers]
    wanted = [layer(x) for layer, x in zip(layers, given)]
    right: list[bool] = []

    def work(index: int) -> None:
        right.extend(torch.equal(layers[index](given[index]), wanted[index]) for _ in range(30))

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 60 and all(right)


def test_a_buffer_made_in_inference_mode_serves_training_too() -> None:
    layer = quantised("int4:32", 64, 30)

    def work() -> None:  # a thread of its own has no buffer yet
        with torch.inference_mode():
            layer(inputs_of(40, 64))
        backward(layer, inputs_of(40, 64), inputs_of(40, 30))
        done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


# ---- codes


def embedding(scheme: str) -> QuantisedEmbedding:
    plain = Embedding(200, 128)
    plain.weight = linear(128, 200).weight
    made = quantise_module("embed_tokens", plain, Scheme.parse(scheme))
    assert isinstance(made, QuantisedEmbedding)
    return made


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_embedding_looks_up_what_the_head_multiplies_by(scheme: str) -> None:
    made = embedding(scheme)
    ids = torch.tensor([[0, 31, 32, 63], [64, 65, 198, 199]])
    assert torch.equal(made(ids), made.dense()[ids])
    assert torch.equal(made.dense(), quantised(scheme).dense())
    x = inputs_of(2, 3, 128)
    assert off(made.project(x), x.double() @ made.dense(torch.float64).T) < 2e-6


def test_int8_codes_are_the_nearest_and_use_the_whole_range() -> None:
    weight = linear(96, 50).weight.detach()
    codes, scales = int8.quantise(weight)
    assert (codes.abs().amax(1) == 127).all() and codes.min() >= -127
    error = (weight - codes * scales.float()[:, None]).abs()
    assert (error <= scales.float()[:, None] * 0.76).all()  # half a step; the largest one, where the scale was rounded
    assert (error > scales.float()[:, None] * 0.51).float().mean() < 0.02


@pytest.mark.parametrize("group", [32, 64, 128])
def test_int4_codes_use_the_whole_range(group: int) -> None:
    weight = linear(128, 70).weight.detach()
    codes, scales = int4.unpack(*int4.quantise(weight, group), 70)
    assert codes.shape == (70, 128) and scales.shape == (70, 128 // group)
    assert codes.min() == -8 and codes.max() == 7
    assert (codes.view(70, -1, group).amin(2) == -8).all()
    found = (codes.view(70, -1, group) * scales.float()[..., None]).view(70, 128)
    assert ((found - weight).abs() <= scales.float().abs().repeat_interleave(group, 1) * 1.04).all()
    assert (found - weight).norm() / weight.norm() < 0.12


def test_zero_weights_stay_zero() -> None:
    for scheme in SCHEMES:
        plain = linear(128, 64)
        with torch.no_grad():
            plain.weight[3:60] = 0
        made = quantise_module("layer", plain, Scheme.parse(scheme))
        assert isinstance(made, QuantisedLinear) and not made.dense()[3:60].any()
        assert made(inputs_of(2, 128)).isfinite().all()


def test_int4_is_smaller_in_memory_than_int8_and_int8_than_half() -> None:
    sizes = {}
    for scheme in SCHEMES:
        layer = quantised(scheme, 1024, 640)
        sizes[scheme] = (layer.codes.nbytes + layer.scales.nbytes) * 8 / (1024 * 640)
    assert sizes["int8"] < 8.1 and sizes["int4:128"] < 4.3 and sizes["int4:64"] <= 4.5 and sizes["int4:32"] <= 5
