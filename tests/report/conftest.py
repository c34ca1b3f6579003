"""Figures of an invented run."""

import numpy as np
import pandas as pd
import pytest

SOURCES = ("real", "vae", "swap $x^2$ <b>")


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
