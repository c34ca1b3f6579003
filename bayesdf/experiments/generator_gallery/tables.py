"""What does a run show as numbers: tables, and metrics by flat names?"""

import pandas as pd
import xarray as xr

HELD_OUT = "photographs, other people"
BLURRED = "photographs, blurred by 2 px"


def tables(tree: xr.DataTree) -> dict[str, pd.DataFrame]:
    """Tables by name: `distances`, a row a source. Photographs have no latent."""
    distances = tree["distances"].to_dataset().to_dataframe()
    return {"distances": distances.astype({"latent_dim": "Int64"})}


def metrics(tree: xr.DataTree) -> dict[str, float | int | str | None]:
    """The distances under flat names: ``vae.kernel``, ``vae.kernel_low``, …"""
    table = tables(tree)["distances"].drop(columns="latent_dim")
    return {f"{source}.{name}": float(value) for source, row in table.iterrows() for name, value in row.items()}
