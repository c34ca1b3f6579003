"""What may be predicted: labelled data, or images in any form, as one data set of (image, label)."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from bayesdf.data.unlabelled import UnlabelledImages, is_picture, unlabelled
from bayesdf.errors import BayesdfError, BayesdfWarning

FAR = 0.5
"""Beyond the range of the training images, in widths of that range: X * 2 - 1 of [0, 1] reaches a whole one."""


PIXELS = 9
"""With fewer pixels it is no picture but a vector, whose numbers have no common scale."""


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
    trained = json_attr(attrs, "image_shape")
    if not _labelled(images):
        prepared = json_attr(attrs, "common_path")
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


class ImageCheck:
    """Looks at images as they are predicted, and says at the end what may spoil their predictions.

    Images on another scale than those of training (0 to 255, or -1 to 1, after a fit on [0, 1]) reach beyond the range
    of training. More than `FAR` times that range beyond it is far; a tenth of the images must be, since single images
    may be odd. What has fewer than `PIXELS` pixels is not judged. Images within [0, 1] are right for a posterior fitted
    within it, whatever part of it training filled.

    Parameters
    ----------
    attrs : mapping
        Of the posterior: ``pixel_range``, the least and the largest value in its training images, as JSON, where it is
        known.
    """

    def __init__(self, attrs: Mapping[str, Any]) -> None:
        self.range = json_attr(attrs, "pixel_range")
        self._ends: list[Tensor] = []
        self._pictures = True

    def observe(self, images: Tensor) -> None:
        """Note the range of each image (B, …)."""
        if images[0].numel():
            flat = images.detach().flatten(1)
            self._ends.append(torch.stack([flat.amin(1), flat.amax(1)]).cpu())  # NaN where one is NaN
        self._pictures = self._pictures and images.dim() == 4 and images.shape[2] * images.shape[3] >= PIXELS

    def warn(self, dataset: Dataset[Any]) -> None:
        """Warn, once for each, of images that are not finite, and of another scale."""
        if not self._ends:
            return
        low, high = torch.cat(self._ends, 1)
        finite = low.isfinite() & high.isfinite()
        if not bool(finite.all()):
            broken = (~finite).nonzero()[:, 0].tolist()
            paths = getattr(getattr(dataset, "manifest", None), "get", lambda name: None)("path")
            names = [str(index if paths is None else paths.iloc[index]) for index in broken[:5]]
            warnings.warn(
                f"{len(broken)} of {len(finite)} images hold NaN or infinite values (image {', '.join(names)}"
                f"{', …' if len(broken) > 5 else ''}): what is predicted of them means nothing; leave them out",
                BayesdfWarning,
                stacklevel=4,
            )
        if not (isinstance(self.range, list) and len(self.range) == 2 and self._pictures and bool(finite.any())):
            return
        least, most = (float(value) for value in self.range)
        low, high = low[finite], high[finite]
        margin = FAR * (most - least)
        far = (low < least - margin) | (high > most + margin)
        if least >= 0 and most <= 1:
            far &= (low < 0) | (high > 1)
        if most > least and int(far.sum()) >= max(1, len(finite) / 10):
            warnings.warn(
                f"{int(far.sum())} of {len(finite)} images have values from {float(low[far].min()):.3g} to "
                f"{float(high[far].max()):.3g}, but those of training lie in {least:.3g} to {most:.3g}: bring them to "
                "the scale of training",
                BayesdfWarning,
                stacklevel=4,
            )


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


def json_attr(attrs: Mapping[str, Any], name: str) -> Any:
    """What an attribute that holds JSON says; None where it is absent or no JSON."""
    try:
        return json.loads(attrs.get(name, "null"))
    except (TypeError, ValueError):
        return None
