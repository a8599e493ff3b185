import pytest
import torch
from torch.nn import functional

from ownlm.train.muon import Muon, normalise_neurons, orthogonalise


def conditioned(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """A matrix whose singular values go from 1 down to 0.05."""
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, generator=generator), full_matrices=False)
    return u @ torch.diag(torch.linspace(1, 0.05, min(rows, columns))) @ v


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_singular_values_come_near_to_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrices = torch.stack([conditioned(*shape, seed=i) * scale for i, scale in enumerate((1.0, 1e3, 1e-4))])
    result = orthogonalise(matrices, dtype)
    assert result.dtype == matrices.dtype and result.shape == matrices.shape
    values = torch.linalg.svdvals(result)
    assert float(values.min()) > 0.7 and float(values.max()) < 1.2
    for matrix, found in zip(matrices, result, strict=True):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        assert float(functional.cosine_similarity(found.flatten(), (u @ v).flatten(), dim=0)) > 0.98


def test_a_turned_matrix_gives_the_turned_result() -> None:
    matrix = conditioned(20, 33)[None]
    torch.testing.assert_close(orthogonalise(matrix.mT, torch.float32), orthogonalise(matrix, torch.float32).mT)


def test_zeros_stay_zeros() -> None:
    assert not orthogonalise(torch.zeros(2, 4, 6)).any()


def test_a_step_is_the_formula() -> None:
    shapes = ((32, 8), (8, 32), (32, 8))
    parameters = [torch.nn.Parameter(conditioned(*shape, seed=i)) for i, shape in enumerate(shapes)]
    expected = [parameter.detach().clone() for parameter in parameters]
    muon = Muon(parameters, lr=0.1, momentum=0.9, weight_decay=0.5, dtype=torch.float32)
    momenta = [torch.zeros_like(parameter) for parameter in expected]
    for step in range(2):
        for i, parameter in enumerate(parameters):
            gradient = parameter.grad = conditioned(*shapes[i], seed=10 * step + i + 3)
            momenta[i] = 0.9 * momenta[i] + 0.1 * gradient
            nesterov = 0.1 * gradient + 0.9 * momenta[i]
            scale = 0.1 * (1.0 if i == 1 else 2.0)  # sqrt(32 / 8)
            expected[i] = expected[i] * (1 - 0.1 * 0.5) - scale * orthogonalise(nesterov[None], torch.float32)[0]
        muon.step()
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-4, atol=1e-5)


def test_a_parameter_without_a_gradient_stays() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(parameter.detach(), torch.ones(4, 4))


def test_neurons_are_normalised_by_their_running_size() -> None:
    updates = torch.stack([conditioned(6, 10, seed=1), conditioned(6, 10, seed=2)])
    updates[:, 0] *= 50
    seconds = torch.zeros(2, 6, 1)
    first = normalise_neurons(updates, seconds, 0.9)
    torch.testing.assert_close(seconds, 0.1 * updates.square().mean(-1, keepdim=True))
    # At the first step every row is divided by its own size: all rows come out alike, and the whole keeps its size.
    sizes = first.norm(dim=2)
    torch.testing.assert_close(sizes, sizes[:, :1].expand_as(sizes), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.flatten(1).norm(dim=1), updates.flatten(1).norm(dim=1), rtol=1e-4, atol=1e-5)


def test_normalised_steps_differ_and_their_state_is_kept_per_parameter() -> None:
    found = []
    for beta in (0.0, 0.95):
        parameters = [torch.nn.Parameter(conditioned(8, 8, seed=i)) for i in range(2)]
        muon = Muon(parameters, lr=0.1, dtype=torch.float32, neuron_beta=beta)
        for step in range(3):
            for i, parameter in enumerate(parameters):
                parameter.grad = conditioned(8, 8, seed=10 * step + i) * torch.linspace(1, 5, 8)[:, None]
            muon.step()
        found.append([parameter.detach().clone() for parameter in parameters])
        assert all(("neurons" in muon.state[parameter]) == bool(beta) for parameter in parameters)
    assert not torch.allclose(found[0][0], found[1][0])
    seconds = [muon.state[parameter]["neurons"] for parameter in parameters]
    assert not torch.equal(*seconds)


def test_cautious_decay_spares_weights_that_the_update_grows() -> None:
    start = conditioned(8, 8)
    steps = {}
    for name, options in {"none": (0.0, False), "plain": (0.5, False), "cautious": (0.5, True)}.items():
        parameter = torch.nn.Parameter(start.clone())
        parameter.grad = conditioned(8, 8, seed=4)
        Muon([parameter], lr=0.1, weight_decay=options[0], dtype=torch.float32, cautious=options[1]).step()
        steps[name] = parameter.detach()
    update = start - steps["none"]  # what the gradient takes away
    shrinks = update * start > 0
    assert 0 < int(shrinks.sum()) < shrinks.numel()
    torch.testing.assert_close(steps["cautious"][shrinks], steps["plain"][shrinks])
    torch.testing.assert_close(steps["cautious"][~shrinks], steps["none"][~shrinks])
