"""A small convolutional network, pictures for it, and short fits, for tests of what all methods share."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.inference import SVI, training


def convolutional():
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def pictures(count=24):
    noise = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    return TensorDataset(torch.rand(count, 3, 8, 8, generator=noise) + 0.3 * labels[:, None, None, None], labels)


def short(**settings):
    return SVI(**{"epochs": 3, "batch_size": 8, "lr": 0.01, "progress": False, **settings})


def noisy(images, noise):
    return images + 0.1 * torch.rand(images.shape, generator=noise)


def stop(method, model, train, validation=None, step=11):
    """Fit, and stop at a step: by default in the middle of the fourth epoch of three batches."""

    def check(value, name, history):
        if len(history.loss) == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "check_value", check)
        with pytest.raises(KeyboardInterrupt):
            method.fit(model, train, validation)
