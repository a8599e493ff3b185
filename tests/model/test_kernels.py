import shutil

import pytest
import torch

import tiny
from ownlm.model.cross_entropy import linear_cross_entropy
from ownlm.model.decoder import Decoder
from ownlm.model.kernels import Kernels, Precision, use

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler to compile blocks with"
)


def loss_and_gradients(decoder: Decoder) -> list[torch.Tensor]:
    ids = tiny.random_ids(2, 41)
    hidden = decoder.hidden(ids[:, :-1]).flatten(0, 1)
    loss = linear_cross_entropy(hidden, decoder.head, ids[:, 1:].flatten(), torch.ones(80))
    return [loss.detach(), *torch.autograd.grad(loss, list(decoder.parameters()))]


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_block_computes_the_same(precision: Precision) -> None:
    """In bf16 a fused block rounds at other places: it may be off as far as the eager one is, and not much further."""
    decoder = tiny.decoder()
    exact = loss_and_gradients(use(decoder, Kernels("float32", "tiled")))
    eager = loss_and_gradients(use(decoder, Kernels(precision, "tiled")))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = loss_and_gradients(use(decoder, Kernels(precision, "tiled", compiled=True)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "the layers share one compiled function"
    for found, plain, true in zip(compiled, eager, exact, strict=True):
        allowed = 1e-4 + 1.5 * float((plain - true).norm() / true.norm())
        assert float((found - true).norm() / true.norm()) < allowed


@pytest.mark.parametrize("attention", ["sdpa", "tiled"])
def test_recomputed_activations_give_the_same_gradients(attention: str) -> None:
    decoder = tiny.decoder()
    kept = loss_and_gradients(use(decoder, Kernels("bfloat16", attention)))  # type: ignore[arg-type]
    again = loss_and_gradients(use(decoder, Kernels("bfloat16", attention, recompute=True)))  # type: ignore[arg-type]
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


def test_recomputing_keeps_the_blocks_inputs_only() -> None:
    sizes = []
    for recompute in (False, True):
        decoder = use(tiny.decoder(), Kernels(recompute=recompute))
        held: set[int] = set()
        keep = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}

        def pack(tensor: torch.Tensor, held: set[int] = held, keep: set[int] = keep) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in keep | held:
                held.add(storage.data_ptr())
                sizes[-1] += storage.nbytes()
            return tensor

        sizes.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            hidden = decoder.hidden(tiny.random_ids(2, 40))
        del hidden
    assert sizes[1] < 0.35 * sizes[0]
