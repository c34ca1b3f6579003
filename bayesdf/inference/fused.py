"""The elementwise work of mean-field inference over weights, in few passes over the memory.

A step over millions of random weights is bound by memory: noise, scale, sample, divergence and their gradients each
read and write every number when autograd does them one after another. Here they run in pieces that stay in the cache,
with their gradients written out.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

CHUNK = 1 << 16
"""Numbers at once: a handful of such pieces stay in a core's own cache."""


def reparameterise(loc: Tensor, log_scale: Tensor) -> Tensor:
    """``loc + exp(log_scale) ε`` with standard normal ``ε`` from torch's global state; all of one shape."""
    return _Reparameterise.apply(loc, log_scale)


def normal(loc: Tensor, scale: Tensor, noise: torch.Generator) -> Tensor:
    """``loc + scale ε`` with ``ε`` from that generator, in the order in which the numbers lie in memory."""
    value = torch.empty_like(loc)
    for m, s, w in _pieces(loc, _as(scale, loc), value):
        torch.addcmul(m, s, w.normal_(generator=noise), out=w)
    return value


def normal_divergence(loc: Tensor, log_scale: Tensor, prior_loc: Tensor, prior_scale: Tensor) -> Tensor:
    """``Σ KL(N(loc, exp(log_scale)²) || N(prior_loc, prior_scale²))``, a number.

    The prior's parameters may be expanded from a single number. Gradients flow to the guide and, where they ask for
    it, to the prior.
    """
    return _Divergence.apply(loc, log_scale, prior_loc, prior_scale)


class _Reparameterise(Function):
    @staticmethod
    def forward(ctx: Any, loc: Tensor, log_scale: Tensor) -> Tensor:
        value, deviation = torch.empty_like(loc), torch.empty_like(loc)
        for m, ls, w, d in _pieces(loc, _as(log_scale, loc), value, deviation):
            d.normal_().mul_(ls.exp())
            torch.add(m, d, out=w)
        ctx.save_for_backward(deviation)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (deviation,) = ctx.saved_tensors
        grad = _as(grads[0], deviation)
        return grad, grad * deviation


class _Divergence(Function):
    @staticmethod
    def forward(ctx: Any, loc: Tensor, log_scale: Tensor, prior_loc: Tensor, prior_scale: Tensor) -> Tensor:
        ctx.save_for_backward(loc, log_scale, prior_loc, prior_scale)
        total = loc.new_zeros((), dtype=torch.float64)
        log_scale = _as(log_scale, loc)
        for m, ls, mp, sp in _pieces(loc, log_scale, _like(prior_loc, loc), _like(prior_scale, loc)):
            distance = (m - mp).square_().add_((2 * ls).exp_()).div_(sp * sp)
            log_ratio = sp.log() - ls if sp.numel() > 1 else -ls
            total += 0.5 * distance.sum().double() + log_ratio.sum().double()
            if sp.numel() == 1:
                total += sp.double().log().squeeze() * m.numel()
        return (total - 0.5 * loc.numel()).to(loc.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        loc, log_scale, prior_loc, prior_scale = ctx.saved_tensors
        (grad,) = grads
        to_loc, to_log_scale = torch.empty_like(loc), torch.empty_like(loc)
        log_scale = _as(log_scale, loc)
        parts = (_like(prior_loc, loc), _like(prior_scale, loc), to_loc, to_log_scale)
        for m, ls, mp, sp, gm, gs in _pieces(loc, log_scale, *parts):
            precision = grad / (sp * sp)
            torch.sub(m, mp, out=gm).mul_(precision)
            torch.mul(ls, 2, out=gs).exp_().mul_(precision).sub_(grad)
        to_prior_loc = to_prior_scale = None
        if ctx.needs_input_grad[2]:
            to_prior_loc = -to_loc
        if ctx.needs_input_grad[3]:
            # d/dsp of (s² + (m - mp)²) / 2sp² + log sp
            squares = (2 * log_scale).exp_().add_((loc - prior_loc).square_())
            to_prior_scale = grad * (1 / prior_scale - squares / prior_scale**3)
        return to_loc, to_log_scale, to_prior_loc, to_prior_scale


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors' numbers in the order in which they lie in memory, so many at a time; single numbers as they are."""
    flat = [value.as_strided((value.numel(),), (1,)) if value.numel() > 1 else value.reshape(1) for value in tensors]
    size = flat[0].numel()
    for begin in range(0, size, CHUNK):
        yield tuple(value[begin : begin + CHUNK] if value.numel() > 1 else value for value in flat)


def _as(value: Tensor, like: Tensor) -> Tensor:
    """The same numbers laid out in memory as `like`, whose layout has no holes."""
    return value if value.stride() == like.stride() else torch.empty_like(like).copy_(value)


def _like(value: Tensor, like: Tensor) -> Tensor:
    """A parameter of the prior as `_pieces` takes it: one number, or all laid out as `like`."""
    if all(stride == 0 for stride, size in zip(value.stride(), value.shape, strict=True) if size > 1):
        return value.flatten()[:1]
    return _as(value, like)
