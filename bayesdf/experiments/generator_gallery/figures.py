"""What does a run show as figures?"""

import xarray as xr
from matplotlib.figure import Figure

from bayesdf.report.face_sheets import face_sheet


def figures(tree: xr.DataTree) -> dict[str, Figure]:
    """Figures by name: `samples`, a row a generator."""
    pictures = tree["samples"].to_dataset()["picture"]
    shown = pictures.sizes["image"]
    return {
        "samples": face_sheet(
            {str(name): pictures.sel(row=name).values / 255.0 for name in pictures["row"].values},
            title="What each generator makes",
            subtitle=f"The first {shown} samples of seed {tree.attrs['seed']}, not chosen, and {shown} photographs. "
            "Samples after crop, resize, 8 bits and JPEG.",
        )
    }
