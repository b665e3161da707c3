"""First and second derivatives, against finite differences and against the same formulas in plain PyTorch."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from readouts import readout
from readouts.reductions import ELEMENTARY

INDEX = torch.tensor([0, 2, 0, 2, 2, 0, 4])  # graphs 1 and 3 are empty
REDUCTIONS = (*ELEMENTARY, ("sum", "mean", "max"), ELEMENTARY)
SPREAD = ("var", "std")


def features(dtype=torch.float64):
    return torch.randn(7, 3, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("reduce", REDUCTIONS, ids=str)
def test_finite_differences(reduce):
    # The lone node of graph 4 has std 0, where the derivative is 0 by contract and undefined by limit.
    nodes = 6 if "std" in reduce else 7

    def function(x):
        return readout(x[:nodes], INDEX[:nodes], reduce, size=5)

    assert gradcheck(function, features())
    assert gradgradcheck(function, features())


@pytest.mark.parametrize("reduce", SPREAD)
def test_third_derivative(reduce):
    def gradient(x):
        out = readout(x, INDEX[:6], reduce, size=5)
        return torch.autograd.grad((out**2).sum(), x, create_graph=True)[0]

    assert gradgradcheck(gradient, torch.randn(6, 3, dtype=torch.float64, requires_grad=True))


def in_plain_torch(x, reduce):
    columns = []
    for graph in range(5):
        rows = x[graph == INDEX]
        if len(rows) == 0:
            columns.append(x.new_zeros(x.shape[1]))
            continue
        variance = rows.var(0, unbiased=False)
        columns.append(
            {
                "sum": rows.sum(0),
                "mean": rows.mean(0),
                "max": rows.amax(0),
                "min": rows.amin(0),
                "var": variance,
                "std": torch.where(variance == 0, 0, torch.where(variance == 0, 1, variance).sqrt()),
            }[reduce]
        )
    return torch.stack(columns)


@pytest.mark.parametrize("reduce", ELEMENTARY)
def test_energies_and_forces(reduce):
    """The gradient of a loss on a gradient, as in training on forces."""
    x = features(torch.float32)

    def force_loss(function):
        energy = (function(x) ** 2).sum() + function(x).sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return torch.autograd.grad((force**3).sum(), x)[0]

    actual = force_loss(lambda x: readout(x, INDEX, reduce, size=5))
    expected = force_loss(lambda x: in_plain_torch(x, reduce))
    assert expected.abs().max() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduce", REDUCTIONS, ids=str)
def test_forward_mode(reduce):
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)

    def function(x):
        return readout(x, INDEX[:6], reduce, size=5)

    assert gradcheck(function, x, check_forward_ad=True)
    assert gradgradcheck(function, x, check_fwd_over_rev=True)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones(6, 3, dtype=torch.float64))
        assert torch.autograd.forward_ad.unpack_dual(function(dual)).tangent is not None


def test_sums_of_second_order_are_rounded_once():
    values = torch.tensor([[1.0], [2.0**-24], [2.0**-80]])
    for name in ("sum", "mean"):
        x, weight = torch.zeros(3, 1, requires_grad=True), torch.ones(1, 1, requires_grad=True)
        (grad,) = torch.autograd.grad(readout(x, None, name), x, weight, create_graph=True)
        (second,) = torch.autograd.grad(grad, weight, values)
        assert second.equal(readout(values, None, name))


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_second_order_through_ties(reduce):
    x = torch.tensor([[1.0], [1.0], [1.0]], requires_grad=True)
    out = readout(x, None, reduce) ** 2
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    assert grad.flatten().tolist() == pytest.approx([2 / 3] * 3)
    (second,) = torch.autograd.grad(grad[0].sum(), x)
    assert second.flatten().tolist() == pytest.approx([2 / 9] * 3)


def test_integers_have_no_gradient():
    assert not readout(torch.ones(3, 2, dtype=torch.int64), None, "mean").requires_grad
