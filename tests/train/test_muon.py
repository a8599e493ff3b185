import pytest
import torch
from torch.nn import functional

from ownlm.train.muon import Muon, orthogonalise


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
