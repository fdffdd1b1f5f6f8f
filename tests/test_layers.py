"""`parties/layers.py`: images as torch's own layers have them, and what else knows of ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from parties.backbones.cnn import Cnn
from parties.fitting import Fit, fit_one
from parties.layers import Image
from parties.training import Training, weights_of

RNG = np.random.default_rng(0)


def usual(module: nn.Module) -> nn.Sequential:
    """The same network, with what torch has in place of `Image`: the parameters are shared."""
    image, *rest = module.children()
    assert type(image) is Image
    return nn.Sequential(nn.Unflatten(1, (1, image.side, image.side)), *rest)


@given(st.integers(0, 4), st.integers(1, 7), st.integers(0, 99))
@settings(deadline=None)
def test_an_image_has_its_pixels_row_by_row(count: int, side: int, seed: int) -> None:
    features = torch.rand(count, side**2, generator=torch.Generator().manual_seed(seed))
    images = Image(side)(features)
    assert torch.equal(images, nn.Unflatten(1, (1, side, side))(features))
    assert images.untyped_storage().data_ptr() == features.untyped_storage().data_ptr()


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_a_cpus_images_stay_channels_last_up_to_the_end(normalization: str) -> None:
    module = Cnn((3, 4), normalization).build(64, 10, 0)
    seen: list[Tensor] = []
    for part in module.children():
        part.register_forward_hook(lambda _, __, found: seen.append(found))
    module(torch.rand(5, 64))
    inner = [found for found in seen if found.ndim == 4]
    assert len(inner) == 7 + 2 * (normalization == "batch")
    assert all(found.is_contiguous(memory_format=torch.channels_last) for found in inner)
    assert not any(found.is_contiguous() for found in inner if found.shape[1] > 1)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("shape", [(10, 256), (16, 36), (4, 63)])
def test_features_of_another_width_are_no_images(shape: tuple[int, int], device: str) -> None:
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        Image(8)(torch.empty(shape, device=device))


def test_elsewhere_images_are_as_torch_lays_them_out() -> None:
    images = Image(3)(torch.empty(2, 9, device="meta"))
    assert images.shape == (2, 1, 3, 3)
    assert images.stride() == torch.empty(2, 1, 3, 3).stride()


@pytest.mark.parametrize("normalization", ["none", "batch"])
@pytest.mark.parametrize("channels", [(4,), (4, 3)])
def test_training_comes_to_the_weights_of_the_usual_layers(
    channels: tuple[int, ...], normalization: str
) -> None:
    ours, theirs = (Cnn(channels, normalization).build(64, 3, 5) for _ in range(2))
    features = RNG.normal(size=(37, 64)).astype(np.float32)
    labels = RNG.integers(0, 3, 37)
    training = Training(epochs=2, batch_size=8, learning_rate=0.05, momentum=0.5)
    losses = [training.fit(m, features, labels, 1) for m in (ours, usual(theirs))]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    start, due = weights_of(Cnn(channels, normalization).build(64, 3, 5)), weights_of(theirs)
    for name, array in weights_of(ours).items():
        np.testing.assert_allclose(array, due[name], atol=1e-5, err_msg=name)
        assert "weight" not in name or not np.allclose(array, start[name], atol=1e-3)
    said = [training.probabilities(m, features) for m in (ours, usual(ours))]
    np.testing.assert_allclose(*said, atol=1e-6)


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_a_convolutional_network_is_built_once_for_many_fits(
    normalization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    layers = Cnn.layers

    def noted(self: Cnn, inputs: int, classes: int) -> nn.Module:
        built.append(inputs)
        return layers(self, inputs, classes)

    monkeypatch.setattr(Cnn, "layers", noted)
    backbone = Cnn((2, 5), normalization)
    start = weights_of(backbone.build(36, 3, 0))
    fit = Fit(
        Training(batch_size=4),
        backbone,
        classes=3,
        draw=0,
        start=start,
        features=RNG.normal(size=(10, 36)).astype(np.float32),
        targets=RNG.integers(0, 3, 10),
        shuffle=0,
        epochs=1,
    )
    first = fit_one(fit)
    built.clear()
    fit_one(replace(fit, shuffle=7))
    again = fit_one(fit)
    assert not built
    assert again[1] == first[1]
    for name, array in first[0].items():
        np.testing.assert_array_equal(again[0][name], array)
