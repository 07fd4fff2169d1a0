"""What torch is told of the operators: opcheck, torch.compile, autocast, second derivatives."""

from __future__ import annotations

import pytest
import torch
from helpers_bags import DTYPES, make, pulled, units

from patchmill.kernels import bags
from patchmill.kernels.bags import operators, reference


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_operators_are_what_they_say(dtype: torch.dtype):
    for z in (make(3, 4, 5, dtype=dtype), make(4, 3, 5, dtype=dtype).transpose(0, 1)):
        for keep in (True, False):
            torch.library.opcheck(operators.bag_loss, (z.detach().requires_grad_(), keep))
        gradient = torch.tensor(2.0)
        torch.library.opcheck(operators.bag_loss_backward, (gradient, z, torch.empty(0, 2, 5)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 5, 3)])
def test_the_rates_operators_are_what_they_say(shape: tuple[int, ...], dtype: torch.dtype):
    z = units(*shape, dtype=dtype)
    torch.library.opcheck(operators.coding_rate, (z.detach().requires_grad_(), 0.2))
    _, factors = operators.coding_rate(z, 0.2)
    torch.library.opcheck(operators.coding_rate_backward, (torch.ones(2), z, factors, 0.2))


@pytest.mark.parametrize("dynamic", [True, False])
def test_both_compile_whole(dynamic: bool):
    def objective(z: torch.Tensor) -> torch.Tensor:
        return 200 * bags.bag_loss(z) - bags.coding_rate(z).mean()

    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for shape in ((4, 3, 8), (4, 9, 8)):
        z = units(*shape)
        for found, expected in zip(pulled(compiled, z), pulled(objective, z), strict=True):
            torch.testing.assert_close(found, expected)


def test_embeddings_of_an_autocast_network():
    network = torch.nn.Linear(6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = network(make(4, 3, 6))
        loss = bags.bag_loss(z) + bags.coding_rate(z).sum()
    assert (z.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    truth = reference.bag_loss(z.double()) + reference.coding_rate(z.double(), 0.2).sum()
    torch.testing.assert_close(loss.double(), truth, rtol=1e-5, atol=1e-5)
    loss.backward()
    assert network.weight.grad.isfinite().all()


@pytest.mark.parametrize("face", [bags.bag_loss, bags.coding_rate])
def test_a_second_derivative_is_refused(face):
    z = units(2, 3, 4).requires_grad_()
    (slope,) = torch.autograd.grad(face(z).sum(), z, create_graph=True)
    with pytest.raises(RuntimeError):
        slope.sum().backward()
