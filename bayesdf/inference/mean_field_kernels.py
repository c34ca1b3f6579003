"""The elementwise work of mean-field inference over weights, in few passes over the memory.

Memory limits the speed of a step over millions of random weights. Autograd computes noise, scale, sample, divergence
and their gradients one after another, and each reads and writes every number. Here they run in pieces that stay in the
cache, with explicit gradients.
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
"""Numbers in a piece. A few such pieces stay in a core's own cache, and torch runs them in one thread."""


def reparameterise(loc: Tensor, log_scale: Tensor) -> Tensor:
    """``loc + exp(log_scale) ε`` with standard normal ``ε`` from torch's global state; all of one shape."""
    return _Reparameterise.apply(loc, log_scale)


def standard_normal(like: Tensor) -> Tensor:
    """Standard normal numbers from torch's global state, with the shape and memory layout of `like`.

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
    """The source of noise for each piece: the given generator for a single piece, else one generator for each.

    Pieces run in parallel, and the number of threads must not change the result.
    """
    if numbers <= CHUNK:
        return lambda index: noise
    seeds = torch.randint(1 << 62, (-(-numbers // CHUNK),), generator=noise).tolist()
    return lambda index: torch.Generator().manual_seed(seeds[index])


def normal_divergence(loc: Tensor, log_scale: Tensor, prior_loc: Tensor, prior_scale: Tensor) -> Tensor:
    """``Σ KL(N(loc, exp(log_scale)²) || N(prior_loc, prior_scale²))``, a number.

    The prior's parameters may be expanded from a single number. Gradients flow to the guide and, if its parameters
    require them, to the prior.
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
    """``work(index, *piece)`` for all pieces. On a CPU each of torch's threads does its share of the pieces."""
    pieces = list(enumerate(_pieces(*tensors)))
    threads = torch.get_num_threads()
    if threads == 1 or tensors[0].device.type != "cpu" or len(pieces) < 2 * threads:
        return [work(index, *piece) for index, piece in pieces]

    def run(share: list[tuple[int, tuple[Tensor, ...]]]) -> list[Any]:
        with torch.no_grad():  # each thread has a mode of its own
            return [work(index, *piece) for index, piece in share]

    size = -(-len(pieces) // threads)
    shares = [pieces[begin : begin + size] for begin in range(0, len(pieces), size)]
    return [result for results in _pool().map(run, shares) for result in results]


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors' numbers in the order of the memory, `CHUNK` at a time. Single numbers stay as they are."""
    flat = [value.as_strided((value.numel(),), (1,)) if value.numel() > 1 else value.reshape(1) for value in tensors]
    size = flat[0].numel()
    chunk = CHUNK if flat[0].device.type == "cpu" else max(size, 1)  # a GPU would rather have one large piece
    for begin in range(0, size, chunk):
        yield tuple(value[begin : begin + chunk] if value.numel() > 1 else value for value in flat)


def _as(value: Tensor, like: Tensor) -> Tensor:
    """The same numbers in the memory layout of `like`, which has no holes."""
    return value if value.stride() == like.stride() else torch.empty_like(like).copy_(value)


def _like(value: Tensor, like: Tensor) -> Tensor:
    """A parameter of the prior as `_pieces` takes it: one number, or all in the layout of `like`."""
    if all(stride == 0 for stride, size in zip(value.stride(), value.shape, strict=True) if size > 1):
        return value.flatten()[:1]
    return _as(value, like)
