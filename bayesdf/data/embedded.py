"""The data set that comes with the package: 400 photographs of 40 people, and what the generators make of them.

The photographs are those of AT&T Laboratories Cambridge (see `bayesdf.faces`). Within each split every generator makes
as many fakes as there are photographs. A manipulation makes one of each photograph, and its second person (the donor of
a face, a motion, a mouth) is from the same split. The other generators make new faces, which are of nobody. The split
is fixed, so weights trained on its training people can be part of the package. There are four folds
(`bayesdf.faces.people`). Each has fakes of its own, since its donors are others.
"""

import hashlib
import importlib.resources

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.progress import track

from bayesdf.data.image_cache import Content, cached_images
from bayesdf.data.manifest import REAL, SPLITS
from bayesdf.data.masks import NONE, PART, WHOLE, mask_path, no_masks
from bayesdf.data.preprocessing import QUALITY, common_path
from bayesdf.faces import SIZE, Faces, people, photographs
from bayesdf.generators import GENERATORS, Generator
from bayesdf.generators.fakes import NOBODY

SEED = 0


def donor_groups(fold: int = 0) -> dict[str, list[list[str]]]:
    """The people of each split of a fold in groups. The two people of a fake are from the same group.

    All training people are one group. Validation and test people form groups of three or four. So a classifier can be
    judged within these splits on people whom it has never seen, not even as donors.
    """
    parts = {"train": 1, "val": 2, "test": 3}
    return {
        split: [group.tolist() for group in np.array_split(members, parts[split])]
        for split, members in people(fold).items()
    }


def read(size: int = SIZE, quality: int | None = QUALITY, variants: int = 1, fold: int = 0) -> Content:
    """The images (N, size, size, 3) uint8 of a fold, their manifest, and the masks of the manipulated photographs.

    A new or redrawn face is changed as a whole. The manifest's attribute `aligned` says whether all faces lie at the
    template, which those of several variants do not.

    Parameters
    ----------
    variants
        How many alignments of each training photograph the generators work on (see `bayesdf.faces.photographs`). More
        than one is for training a network from scratch. A generator that draws new faces then redraws the training
        photographs instead: it decodes its own guess of their latents. So every training fake is of a person of whom
        there are photographs, and who is in a picture does not say whether it is real. There are as many alignments of
        the photographs as there are fakes.
    fold
        0 … 3. The manifest does not name it: new faces of two folds may have one path, but are different images.
    """
    key = _key(size, quality, variants, fold)
    images, manifest, masks = cached_images(f"embedded-{key}", lambda: _make(size, quality, variants, fold))
    manifest.attrs["aligned"] = variants == 1
    return images, manifest, masks


def _key(size: int, quality: int | None, variants: int, fold: int) -> str:
    redrawn = " redrawn" if variants > 1 else ""
    settings = f"{SEED} {donor_groups(fold)} {size} {quality} {variants} {sorted(GENERATORS)}{redrawn}"
    digest = hashlib.sha256(settings.encode())
    digest.update(photographs().images.tobytes())
    weights = importlib.resources.files("bayesdf.generators").joinpath("weights")
    for name in sorted(GENERATORS):
        file = weights.joinpath(f"{name}.safetensors")
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _make(size: int, quality: int | None, variants: int, fold: int) -> Content:
    images, rows, masks = [], [], []
    sources = [REAL, *GENERATORS]
    jobs = [(split, source, 0) for split in SPLITS for source in sources]
    jobs += [(SPLITS[0], source, variant) for source in GENERATORS for variant in range(1, variants)]
    alignments = variants * len(GENERATORS) if variants > 1 else 1
    jobs += [(SPLITS[0], REAL, variant) for variant in range(1, alignments)]
    for split, source, variant in track(jobs, "making the fakes", transient=True):
        redrawn = variants > 1 and split == SPLITS[0] and source != REAL and _redraws(GENERATORS[source])
        # Without the fold, the new faces of all folds' tests would be the same images.
        rng = np.random.default_rng(
            [SEED, SPLITS.index(split), sources.index(source), variant, *([fold] if fold else [])]
        )
        manipulates = source != REAL and GENERATORS[source].manipulate is not None
        kind = NONE if source == REAL else PART if manipulates else WHOLE
        for group in donor_groups(fold)[split]:
            faces = photographs(variant).take(np.isin(photographs().subject, group))
            if source == REAL:
                made, donors = faces.images, np.full(len(faces), NOBODY)
            elif redrawn:
                made, donors = _redraw(GENERATORS[source], faces), np.full(len(faces), NOBODY)
            else:
                fakes = GENERATORS[source].fakes(faces, rng)
                made, donors = fakes.images, fakes.donor
                if manipulates:
                    masks += [mask_path(mask, size) for mask in fakes.mask]
            for row, (image, donor) in enumerate(zip(made, donors, strict=True)):
                pixels, length = common_path(image, size, quality)
                path = f"{source}/{faces.name[row]}" + (f"/{variant}" if variant else "")
                person = source == REAL or redrawn or donor != NOBODY
                images.append(pixels)
                rows.append(
                    {
                        "path": path,
                        "source": source,
                        "subject": faces.subject[row] if person else "",
                        "donor": faces.subject[donor] if donor != NOBODY else "",
                        "video": faces.name[row] if person else path,
                        "split": split,
                        "bytes": length,
                        "mask": kind,
                    }
                )
    together = np.stack(images)
    return together, pd.DataFrame(rows), np.stack(masks) if masks else no_masks(together)


def _redraws(generator: Generator) -> bool:
    """Whether a generator can draw a given photograph, and not only change it."""
    return generator.manipulate is None and generator.encode is not None


def _redraw(generator: Generator, faces: Faces) -> NDArray[np.float32]:
    """The photographs as the generator draws them: it decodes its guess of each latent."""
    pictures = torch.from_numpy(np.asarray(faces.images, np.float32))[:, None]
    return generator.pictures(torch.cat([generator.guess(part) for part in pictures.split(64)]))
