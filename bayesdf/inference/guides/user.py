"""A guide of the user's own."""

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from bayesdf.errors import BayesdfError
from bayesdf.inference.guides.guide import Options, draw_from, rms
from bayesdf.inference.joint import Example, start_from, unconstrained_start
from bayesdf.inference.samplers import Sampler, StoredSampler


class UserGuide:
    """Any guide of Pyro: a class of automatic guides, or a function (or module) of its own; its draws are stored."""

    def __init__(
        self, guide: Any, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        self.elbo = Trace_ELBO()  # of the two, the one that assumes nothing about the guide
        self.example, self.stored_draws = example, options.stored_draws
        made_from = guide.func if isinstance(guide, partial) else guide
        name = getattr(made_from, "__name__", type(guide).__name__)
        if inspect.isclass(made_from) and issubclass(made_from, AutoGuide):
            make: Any = guide
            together = torch.cat([value.flatten() for value in start.values()])
            known = {
                "init_loc_fn": start_from(start),
                "init_scale": float(options.init_scale * rms(together)),
            }
            given = guide.keywords if isinstance(guide, partial) else {}
            missing = set(inspect.signature(made_from).parameters) & set(known) - set(given)
            self.guide = make(model, **{option: known[option] for option in missing})
        elif isinstance(guide, AutoGuide):
            raise BayesdfError(
                f"SVI: the guide is an instance of {type(guide).__name__}, which is bound to its model: pass the "
                "class, or functools.partial(the class, its options), to be made on the network that is fitted"
            )
        else:
            self.guide = copy.deepcopy(guide) if isinstance(guide, nn.Module) else guide
        try:
            trace = prune_subsample_sites(pyro.poutine.trace(self.guide).get_trace(*example))
        except AttributeError as error:
            raise BayesdfError(
                f"SVI: the guide {name} fails ({error}): some guides of Pyro cannot hold a site whose name continues "
                "another's; call hyperpriors f'{name}_scale', not f'{name}.scale'"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise BayesdfError(f"SVI: the guide {name} fails: {str(error).splitlines()[0]}") from error
        wanted = unconstrained_start(model, example, start)
        missed = [site for site in wanted if site not in trace.nodes]
        if missed:
            raise BayesdfError(
                f"SVI: the guide {name} misses {len(missed)} of the {len(wanted)} sites of the detector: "
                f"{', '.join(missed[:5])}{', …' if len(missed) > 5 else ''}; sample each of them"
            )
        for site, (value, _) in wanted.items():
            found = trace.nodes[site]["value"]
            if found.shape != value.shape or not bool(found.isfinite().all()):
                what = "a value that is not finite" if found.shape == value.shape else f"shape {tuple(found.shape)}"
                raise BayesdfError(f"SVI: the guide {name} gives site {site} {what}, where it has {tuple(value.shape)}")

    def __call__(self, *args: Any) -> Any:
        return self.guide(*args)

    def has_scale_rate(self, parameter: str) -> bool:
        return False

    def draw(self) -> dict[str, Tensor]:
        return draw_from(self.guide, *self.example)

    def sampler(self) -> Sampler:
        draws = [self.draw() for _ in range(self.stored_draws)]
        return StoredSampler({name: torch.stack([draw[name] for draw in draws])[None] for name in draws[0]})
