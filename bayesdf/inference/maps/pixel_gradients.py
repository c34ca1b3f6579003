"""How do gradients pass fast through the first convolution to the pixels?

The backward pass of a strided convolution of few channels takes several times its forward pass on a CPU, since its
inner loop is over these channels (measured: 30 ms against 6 ms for the first layer of a ResNet18). A position of the
image that lies r pixels beyond a multiple of the stride is reached by the weights at r, r + stride, …. So each r is a
plain convolution of the gradient with these weights, turned round, and all r together are one (the sub-pixel
convolution of Shi et al., "Real-Time Single Image and Video Super-Resolution", 2016).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

FEW = 16
"""Convolutions of fewer input channels than this have the other backward pass."""


class PixelGradients(TorchFunctionMode):
    """Within it, strided convolutions of few channels pass gradients to their input fast, and to nothing else."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7:
            image, weight, bias, stride, padding, dilation, groups = args
            plain = groups == 1 and tuple(dilation) == (1, 1) and not isinstance(padding, str)
            if plain and stride[0] == stride[1] > 1 and weight.shape[1] < FEW and image.device.type == "cpu":
                weight, bias = weight.detach(), None if bias is None else bias.detach()
                return _Strided.apply(image, weight, bias, stride[0], tuple(padding))
        return func(*args, **(kwargs or {}))


class _Strided(torch.autograd.Function):
    """A convolution that is differentiated in its input alone."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.sides, ctx.stride, ctx.padding = image.shape[2:], stride, padding
        return F.conv2d(image, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return _transposed(gradients[0], weight, ctx.stride, ctx.padding, ctx.sides), None, None, None, None


def _transposed(
    gradient: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], sides: tuple[int, int]
) -> Tensor:
    """The gradient (B, I, H, W) in the input of a convolution of weight (O, I, h, w) whose output has `gradient`."""
    outputs, inputs = weight.shape[:2]
    steps = [-(-side // stride) for side in weight.shape[2:]]
    full = [count * stride - side for count, side in zip(steps, weight.shape[2:], strict=True)]
    phases = F.pad(weight, (0, full[1], 0, full[0])).view(outputs, inputs, steps[0], stride, steps[1], stride)
    kernel = phases.permute(1, 3, 5, 0, 2, 4).reshape(inputs * stride**2, outputs, *steps).flip(2, 3)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    found = F.pixel_shuffle(F.conv2d(gradient, kernel, padding=(steps[0] - 1, steps[1] - 1)), stride)
    # What no weight reaches has no gradient.
    below = [max(0, pad + side - length) for pad, side, length in zip(padding, sides, found.shape[2:], strict=True)]
    found = F.pad(found, (0, below[1], 0, below[0]))
    found = found[:, :, padding[0] : padding[0] + sides[0], padding[1] : padding[1] + sides[1]]
    return found.contiguous()  # what comes next is several times faster on it
