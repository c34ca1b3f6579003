"""What does a posterior's uncertainty add over the best control that has none of it?

Each set of the posterior is compared with the controls of its form, image by image, and the interval of the difference
resamples people. The best control is the one that names most of the judged fakes. It is chosen by the same fakes, so
the difference errs to the side of the control. What is compared are two sets of features, each by itself: the control
stays as it is, and is not added to the set. Intervals resample people. They hold for the draws that were made: other
draws of the same posterior name some other fakes (docs/claim.md).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.analysis import Estimate
from bayesdf.experiments.source_attribution.feature_sets import FORMS, SETS


def gains(attributions: Mapping[str, xr.Dataset], rivals: Mapping[str, Sequence[str]], seed: int) -> pd.DataFrame:
    """The accuracy of each set less that of each of its controls.

    Parameters
    ----------
    rivals
        The controls of each set.

    Returns
    -------
    DataFrame
        A row for each pair, indexed by `pair` (`<set>.<control>`): `features` (the set), `control`, `difference`,
        `difference.low`, `difference.high` of the accuracies (-1 … 1) with a paired 95 % interval over people, and
        `best`, 1 for the best control of the set and 0 for the others.
    """
    rows = {}
    for own, controls in rivals.items():
        right = {name: _share_right(attributions[name]) for name in controls}
        best = max(right, key=right.__getitem__)
        for name in controls:
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
    """The best control of a set, and the difference to it."""
    row = table[(table["features"] == features) & (table["best"] == 1)].iloc[0]
    return str(row["control"]), Estimate(*(float(row[f"difference{end}"]) for end in ("", ".low", ".high")))


def claim(
    table: pd.DataFrame,
    accuracy: Mapping[str, float],
    *,
    sets: Mapping[str, str] = SETS,
    of: str = "the posterior's uncertainty",
    who: str = "the posterior",
) -> str:
    """Whether each set names more than the best of its controls, in a sentence for each that the table decides.

    Parameters
    ----------
    table
        From `gains`.
    accuracy
        The share of fakes whose source each feature set names.
    sets
        What the feature sets are called.
    of, who
        What the sets are of, and whom the verdict is about.
    """
    sentences = []
    for features, form in FORMS.items():
        control, (value, low, high) = best(table, features)
        text = (
            f"From {form} of {of} the source of {accuracy[features]:.1%} of the fakes is named, and of "
            f"{accuracy[control]:.1%} from its best control ({sets[control].removeprefix('control: ')}): a difference "
            f"of {100 * value:+.1f} points"
        )
        if np.isnan(low):
            sentences.append(f"{text} (too few people for an interval).")
            continue
        if low > 0:
            verdict = f"{who} names more"
        elif high < 0:
            verdict = "the control names more"
        else:
            verdict = f"the interval holds zero, so {who} is not shown to name more"
        sentences.append(f"{text} (95 % interval {100 * low:+.1f} to {100 * high:+.1f}); {verdict}.")
    return " ".join(sentences)
