"""Predictions as a last-layer posterior would make them, without a network."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

SOURCES = ("real", "vae", "swap", "poisson", "warp", "mouth")


def synthetic_predictions(
    subjects: int = 12,
    photographs: int = 4,
    sources: tuple[str, ...] = SOURCES,
    draws: int = 40,
    classes: tuple[str, ...] = ("real", "fake"),
    seed: int = 0,
) -> xr.DataTree:
    """A tree as `Posterior.predict` returns it, from features around a centre a source."""
    rng = np.random.default_rng(seed)
    width = 24
    centres = rng.normal(size=(len(sources), width))
    people = 0.4 * rng.normal(size=(subjects, width))
    source, person = np.divmod(np.arange(len(sources) * subjects * photographs), subjects * photographs)
    person = person // photographs
    features = centres[source] + people[person] + 0.7 * rng.normal(size=(len(source), width))
    label = np.minimum(source, len(classes) - 1)
    target = np.eye(len(classes))[label]
    weights = np.linalg.lstsq(features, 6 * (target - 1 / len(classes)), rcond=None)[0]
    noise = 0.25 * rng.normal(size=(draws, width, len(classes)))
    logits = np.einsum("if,sfc->sic", features, weights + noise)
    image = {"image": np.arange(len(source))}
    return xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset(
                {"logits": (("chain", "draw", "image", "class"), logits[None].astype(np.float32))},
                coords={**image, "class": list(classes)},
            ),
            "observed_data": xr.Dataset({"label": ("image", label)}, coords=image),
            "constant_data": xr.Dataset(
                {
                    "source": ("image", np.array(sources)[source]),
                    "subject": ("image", np.array([f"s{p}" for p in person])),
                    "split": ("image", np.full(len(source), "test")),
                    "path": ("image", np.array([f"{sources[s]}/{i}.png" for i, s in enumerate(source)])),
                },
                coords=image,
            ),
        }
    )


@pytest.fixture(scope="session")
def predictions() -> xr.DataTree:
    return synthetic_predictions()


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., xr.DataTree]:
    return synthetic_predictions
