"""What does a posterior's uncertainty add over the best control that has none of it?

Each set of the posterior is compared with the controls of its form, image by image, and the interval of the difference
resamples people. The best control is the one that names most of the judged fakes. It is chosen by the same fakes, so
the difference errs to the side of the control.
"""

from collections.abc import Mapping

import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.analysis import Estimate
from bayesdf.experiments.source_attribution.feature_sets import FORMS, RIVALS, SETS


def gains(attributions: Mapping[str, xr.Dataset], seed: int) -> pd.DataFrame:
    """The accuracy of each set of the posterior less that of each of its controls.

    Returns
    -------
    DataFrame
        A row for each pair, indexed by `pair` (`<set>.<control>`): `features` (the set), `control`, `difference`,
        `difference.low`, `difference.high` of the accuracies (-1 … 1) with a paired 95 % interval over people, and
        `best`, 1 for the best control of the set and 0 for the others.
    """
    rows = {}
    for own, rivals in RIVALS.items():
        right = {name: _share_right(attributions[name]) for name in rivals}
        best = max(right, key=right.__getitem__)
        for name in rivals:
            found = analysis.compare(attributions[own], attributions[name], seed=seed)
            value, low, high = analysis.estimate(found, "accuracy_difference")
            rows[f"{own}.{name}"] = {
                "features": own,
                "control": name,
                "difference": value,
                "difference.low": low,
                "difference.high": high,
                "best": int(name == best),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("pair")


def _share_right(attribution: xr.Dataset) -> float:
    return float((attribution["prediction"] == attribution["truth"]).mean())


def best(table: pd.DataFrame, features: str) -> tuple[str, Estimate]:
    """The best control of a set of the posterior, and the difference to it."""
    row = table[(table["features"] == features) & (table["best"] == 1)].iloc[0]
    return str(row["control"]), Estimate(*(float(row[f"difference{end}"]) for end in ("", ".low", ".high")))


def claim(table: pd.DataFrame, accuracy: Mapping[str, float]) -> str:
    """What the posterior's uncertainty adds, scalars and profile apart, in two sentences that the table decides.

    Parameters
    ----------
    table
        From `gains`.
    accuracy
        The share of fakes whose source each feature set names.
    """
    return " ".join(_one(table, accuracy, features) for features in RIVALS)


def _one(table: pd.DataFrame, accuracy: Mapping[str, float], features: str) -> str:
    control, difference = best(table, features)
    if difference.low > 0:
        verdict = "the posterior adds to what names the source"
    elif difference.high < 0:
        verdict = "the control names more"
    else:
        verdict = "the interval holds zero, so the posterior is not shown to add anything"
    return (
        f"From {FORMS[features]} of the posterior's uncertainty the source of {accuracy[features]:.1%} of the fakes is "
        f"named, and of {accuracy[control]:.1%} from its best control ({SETS[control].removeprefix('control: ')}): a "
        f"difference of {100 * difference.value:+.1f} points (95 % interval {100 * difference.low:+.1f} to "
        f"{100 * difference.high:+.1f}); {verdict}."
    )
