"""What may be predicted: labelled data, or images in any form, as one data set of (image, label)."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from bayesdf.data.unlabelled import UnlabelledImages, is_picture, unlabelled
from bayesdf.errors import BayesdfError, BayesdfWarning


def as_dataset(images: Any, attrs: Mapping[str, Any]) -> Dataset[Any]:
    """The data set of (image, label) that a posterior with these attributes is asked to predict.

    Parameters
    ----------
    images
        A torch data set of (image, label), which comes back as it is, or whatever `bayesdf.data.unlabelled` takes.
    attrs : mapping
        Of the posterior: ``image_shape`` and ``common_path`` of its training images, as JSON, where they are known.

    Raises
    ------
    BayesdfError
        This is neither; or these are pictures, and nobody knows how training images were prepared.

    Warns
    -----
    BayesdfWarning
        The images have another shape than those of training.
    """
    trained = known(attrs, "image_shape")
    if not _labelled(images):
        prepared = known(attrs, "common_path")
        path = prepared or {}
        images = unlabelled(images, **{name: path[name] for name in ("size", "quality") if name in path})
        if prepared is None and len(images) and is_picture(images.images[0]):
            side = f"size={trained[-1]}, " if trained else "size=…, "
            raise BayesdfError(
                "the posterior does not know how its training images were prepared, so pictures and files must say "
                f"how: predict(bayesdf.data.unlabelled(images, {side}quality=…)), or pass tensors (B, 3, H, W)"
            )
    if trained and len(images):
        shape = list(getattr(images[0][0], "shape", trained))
        if shape != trained:
            warnings.warn(
                f"images have shape {tuple(shape)}, but the posterior was fitted to images of shape {tuple(trained)}: "
                "its doubt about others is not calibrated; bring them to that size",
                BayesdfWarning,
                stacklevel=4,
            )
    return images


def is_labelled(dataset: Dataset[Any]) -> bool:
    """Whether a data set knows what its images are."""
    return not isinstance(dataset, UnlabelledImages)


def _labelled(images: Any) -> bool:
    """Whether this is a data set already, of pairs of an image and a label (or of `UNKNOWN`)."""
    if not isinstance(images, Dataset) or not hasattr(images, "__len__"):
        if hasattr(images, "train") and hasattr(images, "test"):
            raise BayesdfError(f"a {type(images).__name__} is three data sets: pass one of them, as in data.test")
        if isinstance(images, Dataset):
            raise BayesdfError(f"{type(images).__name__} has no length: pass a data set that knows how many images")
        return False
    if not len(images):
        return True
    item = images[0]
    if isinstance(item, tuple | list) and len(item) == 2:
        return True
    if isinstance(item, tuple | list | dict) and not (isinstance(item, tuple | list) and len(item) == 1):
        what = f"{type(item).__name__} of {len(item)}"
        raise BayesdfError(f"an item of the data is a {what}, but must be a pair (image, label), or an image")
    return False


def known(attrs: Mapping[str, Any], name: str) -> Any:
    """What an attribute that holds JSON says; None where it is absent or no JSON."""
    try:
        return json.loads(attrs.get(name, "null"))
    except (TypeError, ValueError):
        return None
