"""Uncertainties, figures and faces of an invented run."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

SOURCES = ("real", "vae", "swap $x^2$ <b>")


@pytest.fixture(scope="session")
def uncertainty() -> xr.Dataset:
    rng = np.random.default_rng(0)
    images = 60
    source = np.array(SOURCES)[np.arange(images) % 3]
    fake = 1 / (1 + np.exp(-rng.normal(np.where(source == "real", -2, 2), 2)))
    probability = np.stack([1 - fake, fake], axis=1)
    total = -(probability * np.log(probability)).sum(axis=1)
    share = rng.uniform(0.1, 0.9, size=images)
    share[0] = 1e-9
    return xr.Dataset(
        {
            "total": ("image", total),
            "aleatoric": ("image", total * (1 - share)),
            "epistemic": ("image", total * share),
            "prediction": ("image", (fake > 0.5).astype(int)),
            "probability": (("image", "class"), probability),
        },
        coords={"source": ("image", source), "label": ("image", (source != "real").astype(int))},
    )


@pytest.fixture(scope="session")
def faces() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(60, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def counts() -> pd.DataFrame:
    return pd.DataFrame([[8, 2, 0], [1, 9, 0], [0, 0, 0]], index=list(SOURCES), columns=list(SOURCES))


@pytest.fixture(scope="session")
def summary() -> pd.DataFrame:
    rows = {
        "mean probability alone": (0.3, 0.25, 0.35),
        "uncertainty": (0.996, 0.9, 1.0),
        "odd": (0.5,) + 2 * (np.nan,),
    }
    table = pd.DataFrame(rows, index=["accuracy", "accuracy.low", "accuracy.high"]).T
    return table.assign(chance=0.2).rename_axis("features")
