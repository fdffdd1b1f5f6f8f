"""Steps of descent: the gradient that is written out is autograd's, and steps are the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from parties.descent import DenseDescent, Descent, cross_entropy, descent_of, is_dense
from tests.checks import large_from


def mlp(inputs: int, widths: tuple[int, ...], classes: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def tensors(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    inputs=st.integers(1, 9),
    widths=st.lists(st.integers(1, 7), max_size=3).map(tuple),
    classes=st.integers(2, 5),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    decay=st.sampled_from([0.0, 0.01]),
    proximal=st.sampled_from([0.0, 0.3]),
    least=st.sampled_from([0, 30, None]),
)
def test_the_gradient_that_is_written_out_leads_where_autograd_leads(
    seed: int,
    inputs: int,
    widths: tuple[int, ...],
    classes: int,
    sizes: list[int],
    decay: float,
    proximal: float,
    least: int | None,
) -> None:
    ours, theirs = (mlp(inputs, widths, classes, seed) for _ in range(2))
    found = Descent(theirs, cross_entropy)
    draw = torch.Generator().manual_seed(seed)
    with large_from(least):
        written = descent_of(ours, cross_entropy)
        assert isinstance(written, DenseDescent)
        for one in (written, found):
            one.begin(proximal)
        for size in sizes:
            features = torch.randn(size, inputs, generator=draw)
            labels = torch.randint(classes, (size,), generator=draw)
            losses = [float(one.look(features, labels)) for one in (written, found)]
            assert losses[0] == pytest.approx(losses[1], abs=1e-5)
            for one in (written, found):
                one.step(0.1, 0.9, decay)
    for mine, other in zip(tensors(ours), tensors(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("decay", "proximal"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.5)])
def test_a_step_is_the_formula(decay: float, proximal: float) -> None:
    """v = m v + g + decay w + proximal (w - w_0), w = w - rate v; of buffers nothing changes."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    features, labels = torch.randn(6, 3).double(), torch.tensor([0, 1, 1, 0, 1, 0])
    start = tensors(module)
    w, v = [p.clone() for p in start], [torch.zeros_like(p) for p in start]
    descent = descent_of(module, cross_entropy)
    assert type(descent) is Descent
    descent.begin(proximal)
    for rate in (0.3, 0.2):
        loss = cross_entropy(module, features, labels)
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        for i, g in enumerate(gradients):
            v[i] = 0.9 * v[i] + g + decay * w[i] + proximal * (w[i] - start[i])
            w[i] = w[i] - rate * v[i]
        descent.look(features, labels)
        descent.step(rate, 0.9, decay)
        for mine, due in zip(tensors(module), w, strict=True):
            np.testing.assert_allclose(mine.numpy(), due.numpy(), rtol=0, atol=1e-12)


def test_only_linear_layers_with_relu_that_are_all_trained_are_written_out() -> None:
    frozen = mlp(3, (4,), 2, 0)
    frozen[0].weight.requires_grad_(False)
    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    for module in (
        frozen,
        tied,
        nn.Linear(3, 2),
        nn.Sequential(nn.Linear(3, 2, bias=False)),
        nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 2)).double(),
    ):
        assert not is_dense(module)
        assert type(descent_of(module, cross_entropy)) is Descent
    dense = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert is_dense(dense)
    assert type(descent_of(dense, lambda m, x, y: m(x).sum())) is Descent
