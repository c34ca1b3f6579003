"""What must a reader know of the images and of the start, to judge the figures of a run?"""

from collections.abc import Mapping, Sequence
from typing import Any

import bayesdf.data as data
from bayesdf.experiments import warm_start

RANDOM = {
    "classifier": "the classifier's weights",
    "normalisation": "the classifier's weights and the gains and shifts of the normalisation before it",
    "block": "the weights of the classifier and of the last block",
    "network": "all weights",
}
"""What is random, by `--sites`."""


def notes(collections: Sequence[data.Collection], settings: Mapping[str, Any]) -> list[str]:
    """What a reader must know, a sentence or two each.

    Parameters
    ----------
    collections
        The images of each fold.
    settings
        Those of the run.
    """
    folds, collection = len(collections), collections[0]
    within = "Train, validation and test share" if folds == 1 else "Train, validation and test of a fold share"
    said = [
        f"{data.describe_people(collection.manifest)}. {within} none of these people. Every image, real or fake, went "
        "through the same crop, resize, 8-bit and JPEG steps before the training."
    ]
    if folds > 1:
        said.append(
            f"There are {folds} folds. Each has a test of its own people, and a detector, a recalibration and "
            "classifiers of sources that learnt from others. Each person is judged in one fold. All figures and "
            "intervals are over the judged people of all folds together."
        )
    if collection.name == "embedded":
        said.append(_embedded(folds))
    said.append(
        "All logits were multiplied by one number and shifted by another before anything else was computed from them, "
        "as makes the validation people's images most probable (`recalibration` in run.zarr): a detector is surer of "
        "the people it was trained on than of strangers. `posteriors/` holds the posteriors as fitted."
    )
    said.append(_start(collections, settings))
    said.append(
        f"SVI's posterior is over {RANDOM[settings['sites']]}. Priors of other weights than the classifier's are "
        "centred on the start. MC dropout's posterior is over masks of the channels of the last stage. All weights "
        "before the first random one stay as they were."
    )
    return said


def _embedded(folds: int) -> str:
    """How the embedded images came to be."""
    of = "" if folds == 1 else " of fold 0"
    seen = (
        " In other folds the five have seen all people of the test, whom the detector never has." if folds > 1 else ""
    )
    return (
        "The photographs are 400 pictures of 40 people; nine generators made as many fakes each. Five draw new "
        f"faces, of nobody, and were trained on the 30 people of training and validation{of}; four work on the "
        "photographs, and the two of these that have a network were trained on all 40 people, as a forger's would "
        f"be on his victims.{seen} The second person of a swap comes from the same split, and within the test from the "
        "same group of three or four people."
    )


def _start(collections: Sequence[data.Collection], settings: Mapping[str, Any]) -> str:
    """What the network started from."""
    detector, learnt = str(settings["detector"]), settings["start"]
    taught = (
        "real against fake; nothing in that training said which generator made a fake"
        if learnt == "blind"
        else "the source of each image, photographs being one; so what names sources may come from those labels"
    )
    ships = [warm_start.ships(detector, collection, learnt) for collection in collections]
    shipped = (
        "The network started from weights trained beforehand on the training people alone, which come with the "
        f"package. They had learnt {taught}. No validation or test person was seen by those weights."
    )
    if all(ships):
        return shipped
    scratch = (
        "The network was trained from scratch on the training split before the posteriors were fitted. It learnt "
        f"{taught}."
    )
    if not any(ships):
        return scratch
    there = ", ".join(str(fold) for fold, own in enumerate(ships) if own)
    return f"Fold {there}: {shipped} Other folds: {scratch}"
