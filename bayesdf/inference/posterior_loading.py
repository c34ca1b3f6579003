"""Read a posterior from its store, and check it. No code of the file's author runs."""

import copy
import json
import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import xarray as xr

from bayesdf._version import __version__
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.posterior_format import digest, unpack_state
from bayesdf.inference.prediction.predictor import state_names
from bayesdf.inference.samplers import SAMPLERS, Sampler
from bayesdf.models.class_logits import to_class_logits
from bayesdf.models.detector import Detector
from bayesdf.models.name_patterns import assign
from bayesdf.models.networks import rebuild
from bayesdf.models.priors import describe
from bayesdf.store import open_tree


def load_posterior(path: str | os.PathLike[str], detector: Detector | None = None) -> Posterior:
    """Read a posterior that `Posterior.save` wrote. Opening an untrusted store runs no code.

    Parameters
    ----------
    path : path
        The Zarr store.
    detector : Detector, optional
        Gives the architecture of a network that `bayesdf.models.build` did not make. It is not changed. Its priors are
        compared with those of the fit, if it has any.

    Raises
    ------
    BayesdfError
        The store is missing or damaged, was changed after it was written, is no posterior, or needs a detector (or
        another one). The message names the version that wrote the store, where it is another one.

    Warns
    -----
    BayesdfWarning
        The fit had other priors than the detector. The posterior stays as it was fitted.
    """
    if detector is not None and not isinstance(detector, Detector):
        raise BayesdfError(
            f"detector is a {type(detector).__name__}, but must be a Detector: pass detector=Detector(network, priors)"
        )
    tree = open_tree(path)
    attrs = {str(name): value for name, value in tree.attrs.items()}
    other_version = _other_version(attrs)
    kind = attrs.pop("sampler", None)
    method = SAMPLERS.get(kind) if isinstance(kind, str) else None
    groups = {str(name): child.to_dataset(inherit=False) for name, child in tree.children.items()}
    if method is not None and method.group not in groups:
        groups[method.group] = groups.get("variational", xr.Dataset())  # where older versions kept stored draws
    if method is None or not {"network", "sample_stats"} <= set(groups) or not groups[method.group].variables:
        raise BayesdfError(f"{path} is a Zarr store, but not one that Posterior.save wrote{other_version}")
    own = {name: groups[name] for name in ("network", "sample_stats", method.group)}
    written = attrs.pop("sha256", None)
    if written is not None and written != digest({**attrs, "sampler": kind}, own):
        raise BayesdfError(
            f"{path} was changed, or damaged, after Posterior.save wrote it: save it again{other_version}"
        )
    try:
        sampler = method.from_dataset(groups[method.group])
        recipe = json.loads(attrs.pop("recipe", "null"))
        _check_sampler(sampler)
    except BayesdfError:
        raise
    except Exception as error:  # a file may hold anything
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise BayesdfError(
            f"{path}: the posterior's parameters are damaged ({cause}): save it again{other_version}"
        ) from error
    if detector is None and recipe is None:
        raise BayesdfError(
            f"{path}: its network was not made by bayesdf.models.build, so the store cannot rebuild it: pass "
            "detector=Detector(network, priors) with a network of the same architecture"
        )
    try:
        if detector is not None:
            network = copy.deepcopy(detector.network)
        else:
            with torch.random.fork_rng([]):  # its fresh weights are nobody's
                network = rebuild(recipe)
        if attrs.pop("class_logits", 0) or attrs.pop("one_logit", 0):  # older versions called it so
            to_class_logits(network)
        state = unpack_state(groups["network"])
        sampler.install(network)
        network.load_state_dict(state)
        for name, value in network.named_parameters():
            if not bool(value.isfinite().all()):
                raise RuntimeError(f"{name} is not finite")
        tensors = state_names(network)
        for name, shape in sampler.shapes.items():
            if name in tensors and tuple(state[name].shape) != tuple(shape):
                raise RuntimeError(f"site {name} has shape {shape}")
        if not tensors & set(sampler.shapes):
            raise RuntimeError(f"it has none of the sites {', '.join(sampler.shapes)}")
    except BayesdfError:
        raise
    except Exception as error:  # the network's own code, and what the file says of it
        cause = " ".join(str(error).split())[:300]
        raise BayesdfError(f"{path}: its network is not of this architecture: {cause}{other_version}") from error
    if detector is not None and (difference := _other_priors(attrs.get("priors"), detector)):
        warnings.warn(
            f"{path} was fitted with other priors than the detector has ({difference}): the posterior stays as it was "
            "fitted; fit again for those of the detector",
            BayesdfWarning,
            stacklevel=2,
        )
    return Posterior(network, sampler, groups["sample_stats"], attrs)


def _other_priors(written: Any, detector: Detector) -> str:
    """Where the priors that a store describes, as JSON by their patterns, are not the detector's; else nothing.

    Nothing too where either has none: dropout is fitted without, and a detector may be given for its network alone.
    """
    names = [name for name, _ in detector.network.named_parameters()]
    try:
        fitted = {name: text for name, text in assign(json.loads(written), names).items() if text != "None"}
    except (TypeError, ValueError, AttributeError):  # a store of another version, or patterns of a wrapped network
        return ""
    given = {name: describe(prior) for name, prior in detector.sites.items()}
    differ = [name for name in names if fitted.get(name) != given.get(name)]
    if not fitted or not given or not differ:
        return ""
    first = differ[0]
    more = f", and {len(differ) - 1} more" if len(differ) > 1 else ""
    return f"{first}: {fitted.get(first, 'none')} there, {given.get(first, 'none')} here{more}"


def _other_version(attrs: Mapping[str, Any]) -> str:
    """Where another version wrote a store with these attributes: which one, and the way out. Else nothing."""
    version = attrs.get("bayesdf")
    if not isinstance(version, str) or version == __version__ or not re.fullmatch(r"[\w.+-]{1,40}", version):
        return ""
    return f" (written by bayesdf {version}, but this is {__version__}: open it with that version, or fit again)"


def _check_sampler(sampler: Sampler) -> None:
    """Check that a sampler from a store has sites, and gives finite draws of their shapes."""
    if not sampler.shapes:
        raise ValueError("there are no sites")
    for values in (sampler.draw(0, 0), sampler.point()):
        for name, shape in sampler.shapes.items():
            if tuple(values[name].shape) != tuple(shape) or not bool(values[name].isfinite().all()):
                raise ValueError(f"site {name} is not finite, or not of shape {shape}")
