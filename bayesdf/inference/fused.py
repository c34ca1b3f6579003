"""The elementwise work of mean-field inference over weights, in few passes over the memory.

A step over millions of random weights is bound by memory: noise, scale, sample, divergence and their gradients each
read and write every number when autograd does them one after another. Here they run in pieces that stay in the cache,
with their gradients written out.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHUNK = 1 << 15
"""Numbers at once: a handful of such pieces stay in a core's own cache, and torch runs them in one thread."""


def reparameterise(loc: Tensor, log_scale: Tensor) -> Tensor:
    """``loc + exp(log_scale) ε`` with standard normal ``ε`` from torch's global state; all of one shape."""
    return _Reparameterise.apply(loc, log_scale)


def standard_normal(like: Tensor) -> Tensor:
    """Standard normal numbers from torch's global state, shaped and laid out as `like`.

    `torch.randn_like` takes eight times as long where channels are last.
    """
    value = torch.empty_like(like)
    sources = _generators(like.numel() if like.device.type == "cpu" else 0, None)
    _each(lambda index, w: w.normal_(generator=sources(index)), value)
    return value


def normal(loc: Tensor, scale: Tensor, noise: torch.Generator) -> Tensor:
    """``loc + scale ε`` with ``ε`` from that generator, in the order in which the numbers lie in memory; on the CPU."""
    value = torch.empty_like(loc)
    sources = _generators(loc.numel(), noise)

    def sample(index: int, m: Tensor, s: Tensor, w: Tensor) -> None:
        torch.addcmul(m, s, w.normal_(generator=sources(index)), out=w)

    _each(sample, loc, _as(scale, loc), value)
    return value


def _generators(numbers: int, noise: torch.Generator | None) -> Callable[[int], torch.Generator | None]:
    """Where each piece of so many numbers has its noise from: that generator, or, of several pieces, one of its own.

    Pieces run side by side, and by how many threads shall change nothing.
    """
    if numbers <= CHUNK:
        return lambda index: noise
    seeds = torch.randint(1 << 62, (-(-numbers // CHUNK),), generator=noise).tolist()
    return lambda index: torch.Generator().manual_seed(seeds[index])


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
        tensors = (loc, _as(log_scale, loc), value, deviation)
        sources = _generators(loc.numel() if loc.device.type == "cpu" else 0, None)

        def sample(index: int, m: Tensor, ls: Tensor, w: Tensor, d: Tensor) -> None:
            torch.add(m, d.normal_(generator=sources(index)).mul_(ls.exp()), out=w)

        _each(sample, *tensors)
        ctx.save_for_backward(deviation)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (deviation,) = ctx.saved_tensors
        grad = _as(grads[0], deviation)
        return grad, grad * deviation


class _Divergence(Function):
    @staticmethod
    def forward(ctx: Any, loc: Tensor, log_scale: Tensor, prior_loc: Tensor, prior_scale: Tensor) -> Tensor:
        ctx.save_for_backward(loc, log_scale, prior_loc, prior_scale)

        def part(index: int, m: Tensor, ls: Tensor, mp: Tensor, sp: Tensor) -> Tensor:
            apart, variance = m - mp, (2 * ls).exp_()
            if sp.numel() == 1:
                squares = (torch.dot(apart, apart) + variance.sum()) / (sp * sp)
                log_ratio = sp.log() * m.numel() - ls.sum()
            else:
                squares = apart.square_().add_(variance).div_(sp * sp).sum()
                log_ratio = (sp.log() - ls).sum()
            return (0.5 * squares + log_ratio).squeeze()

        parts = _each(part, loc, _as(log_scale, loc), _like(prior_loc, loc), _like(prior_scale, loc))
        return (torch.stack(parts).double().sum() - 0.5 * loc.numel()).to(loc.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        loc, log_scale, prior_loc, prior_scale = ctx.saved_tensors
        (grad,) = grads
        to_loc, to_log_scale = torch.empty_like(loc), torch.empty_like(loc)

        def part(index: int, m: Tensor, ls: Tensor, mp: Tensor, sp: Tensor, gm: Tensor, gs: Tensor) -> None:
            precision = grad / (sp * sp)
            torch.sub(m, mp, out=gm).mul_(precision)
            torch.mul(ls, 2, out=gs).exp_().mul_(precision).sub_(grad)

        prior = (_like(prior_loc, loc), _like(prior_scale, loc))
        _each(part, loc, _as(log_scale, loc), *prior, to_loc, to_log_scale)
        to_prior_loc = to_prior_scale = None
        if ctx.needs_input_grad[2]:
            to_prior_loc = -to_loc
        if ctx.needs_input_grad[3]:
            # d/dsp of (s² + (m - mp)²) / 2sp² + log sp
            squares = (2 * log_scale).exp_().add_((loc - prior_loc).square_())
            to_prior_scale = grad * (1 / prior_scale - squares / prior_scale**3)
        return to_loc, to_log_scale, to_prior_loc, to_prior_scale


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads(), "bayesdf-fused")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def _each(work: Callable[..., Any], *tensors: Tensor) -> list[Any]:
    """``work(index, *piece)`` for all pieces: on a CPU by as many threads as torch has, each at its own run of them."""
    pieces = list(enumerate(_pieces(*tensors)))
    threads = torch.get_num_threads()
    if threads == 1 or tensors[0].device.type != "cpu" or len(pieces) < 2 * threads:
        return [work(index, *piece) for index, piece in pieces]

    def run(share: list[tuple[int, tuple[Tensor, ...]]]) -> list[Any]:
        with torch.no_grad():  # which a thread has to say for itself
            return [work(index, *piece) for index, piece in share]

    size = -(-len(pieces) // threads)
    shares = [pieces[begin : begin + size] for begin in range(0, len(pieces), size)]
    return [result for results in _pool().map(run, shares) for result in results]


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors' numbers in the order in which they lie in memory, so many at a time; single numbers as they are."""
    flat = [value.as_strided((value.numel(),), (1,)) if value.numel() > 1 else value.reshape(1) for value in tensors]
    size = flat[0].numel()
    chunk = CHUNK if flat[0].device.type == "cpu" else max(size, 1)  # a GPU would rather have one large piece
    for begin in range(0, size, chunk):
        yield tuple(value[begin : begin + chunk] if value.numel() > 1 else value for value in flat)


def _as(value: Tensor, like: Tensor) -> Tensor:
    """The same numbers laid out in memory as `like`, whose layout has no holes."""
    return value if value.stride() == like.stride() else torch.empty_like(like).copy_(value)


def _like(value: Tensor, like: Tensor) -> Tensor:
    """A parameter of the prior as `_pieces` takes it: one number, or all laid out as `like`."""
    if all(stride == 0 for stride, size in zip(value.stride(), value.shape, strict=True) if size > 1):
        return value.flatten()[:1]
    return _as(value, like)
