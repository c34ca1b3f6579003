"""What does a generator make, and what happens to its pictures on their way?"""

import hashlib
import importlib.resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bayesdf.data import common_path_grey
from bayesdf.faces import SIZE
from bayesdf.generators import Generator

Images = NDArray[np.float32]
ALTERATIONS: dict[str, tuple[float, ...]] = {
    "as made": (0.0,),
    "jpeg": (90, 70, 50, 30, 10),
    "blur": (0.5, 1.0, 1.5, 2.0, 3.0),
    "noise": (0.01, 0.02, 0.05, 0.1, 0.2),
    "brightness": (0.95, 0.9, 0.8, 0.65, 0.5),
    "crop": (0.98, 0.95, 0.9, 0.8, 0.7),
}
"""What happens to a guilty developer's image: JPEG quality, blur and noise (standard deviations, in pixels and in grey
values of [0, 1]), factor on the grey values, share of the side that is kept."""


def alter(images: Images, kind: str, strength: float, rng: np.random.Generator) -> Images:
    """One of `ALTERATIONS`, then 8 bits, then (but for `as made` and `jpeg` itself) JPEG of quality 90."""
    if kind == "as made":
        return common_path_grey(images, None)
    if kind == "jpeg":
        return common_path_grey(images, int(strength))
    if kind == "blur":
        changed = ndimage.gaussian_filter(images, (0, strength, strength))
    elif kind == "noise":
        changed = images + strength * rng.standard_normal(images.shape, np.float32)
    elif kind == "brightness":
        changed = images * np.float32(strength)
    else:
        edge = (1.0 - strength) * SIZE / 2.0
        box = (edge, edge, SIZE - edge, SIZE - edge)
        whole = (Image.fromarray(image) for image in images)
        changed = np.stack([np.asarray(one.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box)) for one in whole])
    return common_path_grey(changed.clip(0.0, 1.0))


def weights_digest(generator: Generator) -> str:
    """SHA-256 of the file of the generator's weights; where it has none, of what it makes of one latent."""
    file = importlib.resources.files("bayesdf.generators").joinpath("weights", f"{generator.name}.safetensors")
    data = file.read_bytes() if file.is_file() else generator.pictures(generator.sample_latent(1, 0)).tobytes()
    return hashlib.sha256(data).hexdigest()
