"""The custom operators: opcheck, torch.compile, autocast, double backward."""

from __future__ import annotations

import pytest
import torch
from helpers_bags import DTYPES, make, units, value_and_grad

from patchmill.kernels import bags
from patchmill.kernels.bags import operators, reference


@pytest.mark.parametrize("dtype", DTYPES)
def test_bag_loss_passes_opcheck(dtype: torch.dtype):
    for z in (make(3, 4, 5, dtype=dtype), make(4, 3, 5, dtype=dtype).transpose(0, 1)):
        for save in (True, False):
            torch.library.opcheck(operators.bag_loss, (z.detach().requires_grad_(), save))
        gradient = torch.tensor(2.0)
        torch.library.opcheck(operators.bag_loss_backward, (gradient, z, torch.empty(0, 2, 5)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 5, 3)])
def test_coding_rate_passes_opcheck(shape: tuple[int, ...], dtype: torch.dtype):
    z = units(*shape, dtype=dtype)
    torch.library.opcheck(operators.coding_rate, (z.detach().requires_grad_(), 0.2))
    _, factors = operators.coding_rate(z, 0.2)
    torch.library.opcheck(operators.coding_rate_backward, (torch.ones(2), z, factors, 0.2))


@pytest.mark.parametrize("dynamic", [True, False])
def test_compile_without_graph_breaks(dynamic: bool):
    def objective(z: torch.Tensor) -> torch.Tensor:
        return 200 * bags.bag_loss(z) - bags.coding_rate(z).mean()

    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for shape in ((4, 3, 8), (4, 9, 8)):
        z = units(*shape)
        for found, expected in zip(
            value_and_grad(compiled, z), value_and_grad(objective, z), strict=True
        ):
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


@pytest.mark.parametrize("function", [bags.bag_loss, bags.coding_rate])
def test_double_backward_raises(function):
    z = units(2, 3, 4).requires_grad_()
    (grad,) = torch.autograd.grad(function(z).sum(), z, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()
