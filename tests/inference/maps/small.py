"""Small networks with posteriors, for tests of maps."""

import torch
import xarray as xr
from torch import nn

from bayesdf.inference import Posterior
from bayesdf.inference.samplers import NormalSampler
from bayesdf.models.class_logits import to_class_logits


def posterior_over(network, sites, scale=0.3):
    loc = {site: dict(network.named_parameters())[site].detach() for site in sites}
    spread = {site: scale * torch.ones_like(value) for site, value in loc.items()}
    return Posterior(network, NormalSampler(loc, spread, dict.fromkeys(loc, "real")), xr.Dataset(), {})


def convolutional(classes=3, sites=("head.weight", "head.bias"), seed=0, scale=0.3):
    """Smooth in its pixels, with normalisation, and a linear classifier after global average pooling."""
    torch.manual_seed(seed)
    network = nn.Sequential()
    network.add_module("stem", nn.Conv2d(3, 8, 3, padding=1))
    network.add_module("norm", nn.BatchNorm2d(8))
    network.add_module("act", nn.SiLU())
    network.add_module("body", nn.Conv2d(8, 12, 3, stride=2, padding=1))
    network.add_module("tanh", nn.Tanh())
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", nn.Flatten())
    network.add_module("head", nn.Linear(12, classes))
    with torch.no_grad():
        network.norm.running_var.fill_(0.3)
        network.norm.running_mean.fill_(0.1)
        network.head.weight.mul_(4)
    return posterior_over(network.eval(), sites, scale)


def dense(sites=("head.weight", "head.bias"), scale=0.3):
    """Logits (B, 3, 8, 8), which inference has as (B, 8, 8, 3)."""
    torch.manual_seed(1)
    network = nn.Sequential()
    network.add_module("stem", nn.Conv2d(3, 8, 3, padding=1))
    network.add_module("act", nn.SiLU())
    network.add_module("body", nn.Conv2d(8, 12, 3, stride=2, padding=1))
    network.add_module("tanh", nn.Tanh())
    network.add_module("head", nn.Conv2d(12, 3, 1))
    return posterior_over(to_class_logits(network.eval()), sites, scale)


def pictures(count=4, side=16, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
