"""Bring your own generator: any differentiable map from noise to an image.

    python examples/own_generator.py

The generator here is a simple one: its faces are sums of principal components. Its images are told from photographs and
from another generator's images by inverting both candidates.
"""

import numpy as np
import torch

import bayesdf as bdf
from bayesdf.faces import people, photographs
from bayesdf.generators import GENERATORS, Generator
from bayesdf.inversion import evidence, fit_attribution, invert

# --- your generator: z (B, latent_dim), standard normal, -> images (B, 1, 64, 64) in about [0, 1] -------------------
training = np.isin(photographs().subject, people()["train"])
pixels = torch.from_numpy(photographs().images[training]).flatten(1)
middle = pixels.mean(0)
_, strength, axes = torch.linalg.svd(pixels - middle, full_matrices=False)
size = 24
spread = (strength[:size] / len(pixels) ** 0.5)[:, None] * axes[:size]


def decode(z: torch.Tensor) -> torch.Tensor:
    return (middle + z @ spread).view(-1, 1, 64, 64)


mine = Generator("eigenfaces", latent_dim=size, decode=decode)
# --------------------------------------------------------------------------------------------------------------------

candidates = [mine, GENERATORS["vae"]]


def images_of(seed: int, who: str, count: int) -> tuple[np.ndarray, list[str]]:
    """Some images of each source, stored with 8 bits, and who made them."""
    real = photographs().images[np.isin(photographs().subject, people()[who])][:count]
    parts = {"real": real, **{candidate.name: candidate.sample(count, seed) for candidate in candidates}}
    sources = [name for name, images in parts.items() for _ in images]
    return np.concatenate([(images * 255).round() / 255 for images in parts.values()]).astype(np.float32), sources


def explained(images: np.ndarray):
    return evidence({candidate.name: invert(images, candidate, steps=20) for candidate in candidates})


calibration, known = images_of(seed=1, who="val", count=12)
model = fit_attribution(explained(calibration), known)

images, truth = images_of(seed=2, who="test", count=8)
probability = model.probability(explained(images))["probability"].to_pandas()
probability.insert(0, "truth", truth)
print(f"bayesdf {bdf.__version__}: probability of each source, given how well each candidate explains the image")
print(probability.round(3).to_string(index=False))
right = probability.drop(columns="truth").idxmax(axis=1) == probability["truth"]
print(f"{right.sum()} of {len(right)} named rightly")
