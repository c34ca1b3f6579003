"""What does a run show as numbers: tables, and metrics by flat names?"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bayesdf.analysis import Estimate, clustered_share
from bayesdf.experiments.deniability.results import Results


def tables(results: Results) -> dict[str, pd.DataFrame]:
    """Tables by name."""
    return {
        "framing": framing(results),
        "deniability": denial(results).set_index("alteration"),
        "cheats": results.cheats.set_index("cheat"),
        "false_made": results.growth.set_index("kind"),
        "threshold": results.tails,
        "deliveries": deliveries(results).set_index("delivery"),
        "accused": results.accused.rename_axis("image"),
    }


def metrics(results: Results) -> dict[str, float | int | str]:
    """All figures under flat names: ``framing.searched.photograph.convicted.low``, ``denied.jpeg.90``, …"""
    facts = results.facts
    flat: dict[str, float | int | str] = {
        f"threshold.{new}": float(facts[old])
        for new, old in (("distance", "threshold"), ("error", "error"), ("energy", "energy"))
    }
    for attack, target, budget, part in attacks(results.accused):
        name = f"framing.{attack}.{target}" + ("" if np.isnan(budget) else f".{budget:g}")
        for column in ("convicted", "made"):
            flat |= interval_columns(f"{name}.{column}", share(part, column))
        flat[f"{name}.images"] = len(part)
        for column in ("error", "distance", "latent_distance"):
            flat[f"{name}.{column}"] = float(part[column].median())
    for origin, part in innocent_pictures(results).items():
        flat |= interval_columns(f"innocent.{origin}.made", share(part, "made"))
        flat |= {f"innocent.{origin}.images": len(part), f"innocent.{origin}.clusters": count_independent(part)}
    flat |= interval_columns("second_copy.made", share(results.fresh, "made"))
    flat |= interval_columns("copied.altered.made", share(results.copied, "made"))
    flat["copied.altered.share"] = float(results.copied["share"].median())
    flat["copied.identical"] = float(facts["copies_identical"])
    for row in denial(results).to_dict("records"):
        name = f"denied.{row['alteration'].replace(' ', '_')}.{row['strength']:g}"
        flat |= {f"{name}{end}": row[f"denied{end}"] for end in ("", ".low", ".high")}
    for row in deliveries(results).to_dict("records"):
        flat[f"found.{row['delivery'].replace(' ', '.', 1)}"] = row["found"]
        flat[f"auroc.{row['delivery'].replace(' ', '.', 1)}"] = row["AUROC"]
    for row in results.growth[results.growth["multiple"] == 1.0].to_dict("records"):
        flat[f"false_made.{row['kind']}.{row['ledger_size']}.predicted"] = row["predicted"]
        if np.isfinite(row["made"]):
            flat[f"false_made.{row['kind']}.{row['ledger_size']}"] = row["made"]
    refused = results.cheats["outcome"] == "refused"
    flat |= {"cheats": len(refused) - 1, "cheats.refused": int(refused.sum())}
    flat["cheats.as_documented"] = int(results.cheats["as_expected"].sum())
    return {name.replace(" ", "_"): value for name, value in flat.items()}


def framing(results: Results) -> pd.DataFrame:
    """A row an attack: who was convicted, who was cleared, and from how near."""
    rows = {}
    for attack, target, budget, part in attacks(results.accused):
        rows[attack_name(attack, target, budget)] = {
            "images": len(part),
            **interval_columns("convicted", share(part, "convicted")),
            **interval_columns("made", share(part, "made")),
            "error, median": part["error"].median(),
            "distance, median": part["distance"].median(),
            "distance, smallest": part["distance"].min(),
            "latent distance, median": part["latent_distance"].median(),
            "latent distance, smallest": part["latent_distance"].min(),
            "change, rms": part["rms_change"].median(),
            "change, largest": part["largest_change"].median(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("accused image")


def denial(results: Results) -> pd.DataFrame:
    """A row an alteration and strength: how many of the developer's own images its ledger no longer finds."""
    rows = []
    for (kind, strength), part in results.guilty.groupby(["alteration", "strength"], sort=False):
        found = {
            "images": len(part),
            **interval_columns("denied", share(part.assign(denied=~part["made"], cluster=part["truth"]), "denied")),
        }
        nearest = {"nearest_right": part["right"].mean(), "distance, median": part["distance"].median()}
        rows.append({"alteration": kind, "strength": strength, **found, **nearest})
    return pd.DataFrame(rows)


def deliveries(results: Results) -> pd.DataFrame:
    """A row a mild way of delivery: how many genuine samples the threshold finds, and the area under the ROC."""
    others = results.innocents["distance"].to_numpy()
    rows = []
    for delivery, part in results.genuine.groupby("delivery", sort=False):
        own = part["distance"].to_numpy()
        row = {"delivery": delivery, "images": len(own)}
        row |= interval_columns("found", clustered_share(own <= results.facts["threshold"], range(len(own))))
        row |= {"distance, median": np.median(own), "distance, 95 %": np.quantile(own, 0.95)}
        row["AUROC"] = float((own[:, None] < others).mean() + 0.5 * (own[:, None] == others).mean())
        rows.append(row)
    return pd.DataFrame(rows)


def attack_name(attack: str, target: str, budget: float) -> str:
    """An attack as it is called in text."""
    return {
        "untouched": "photographs as they are",
        "perturbed": f"photographs changed by up to {budget:g}/255",
        "searched": f"latents searched for {'photographs' if target == 'photograph' else f'images of {target}'}",
        "second copy": "samples of a second copy of the weights",
        "guilty": "guilty: the developer's own samples",
    }[attack]


def attacks(frame: pd.DataFrame) -> Iterator[tuple[str, str, float, pd.DataFrame]]:
    """Attack, target, budget (NaN where there is none) and the rows, in the order in which they were made."""
    for _, part in frame.groupby(["attack", "target", "budget"], dropna=False, sort=False):
        first = part.iloc[0]
        yield str(first["attack"]), str(first["target"]), float(first["budget"]), part


def innocent_pictures(results: Results) -> dict[str, pd.DataFrame]:
    """All pictures that the ledger's owner did not make, by what they began as.

    `photographs` are of few people, each altered in several ways. Each of `generated` has a latent of its own. The two
    are never counted together: a bound on a share of both would be a bound on neither.
    """
    accused = results.accused[results.accused["attack"] != "guilty"]
    began = accused["target"] == "photograph"
    return {
        "photographs": accused[began],
        "generated": pd.concat([accused.loc[~began, ["cluster", "made"]], results.fresh[["cluster", "made"]]]),
    }


def count_independent(part: pd.DataFrame) -> int:
    """How many people, or where pictures stand alone how many pictures."""
    alone = part["cluster"] == ""
    return int(alone.sum()) + part.loc[~alone, "cluster"].nunique()


def searched_pictures(results: Results) -> pd.DataFrame:
    """Pictures whose latents were searched for photographs."""
    frame = results.accused
    return frame[(frame["attack"] == "searched") & (frame["target"] == "photograph")]


def share(part: pd.DataFrame, column: str) -> Estimate:
    """With an interval over people, or over pictures that stand alone."""
    return clustered_share(part[column].to_numpy(dtype=np.float64), part["cluster"])


def at_most(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % (at most {100 * estimate.high:.1f} %)"


def percents(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} % ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"


def interval_columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}.low": estimate.low, f"{name}.high": estimate.high}
