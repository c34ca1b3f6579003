"""Mouth synthesis: the mouth is painted anew, as if for another's speech. The rest of the photograph stays unchanged.

After Prajwal et al. 2020, "A lip sync expert is all you need" (Wav2Lip): the network sees the face with its mouth
masked, another photograph of the same person, and a short code of the wanted mouth. In Wav2Lip the code comes from
sound, here from the driver's mouth.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdf.faces import Faces
from bayesdf.generators.blend import alpha_blend, mouth_mask, soften
from bayesdf.generators.fakes import Fakes, pick_donors
from bayesdf.generators.generator import Generator
from bayesdf.generators.networks import Encoder, convolution, load_weights, pyramid_loss
from bayesdf.generators.stages import BATCH, Stage, Work, train_on_loss

NAME = "mouth"

CODE = 8
TOP = 32
"""First row of the part of the picture that the network works on."""


class MouthPainter(nn.Module):
    """Masked face, mask and reference (B, 3, 32, 64) and the driver's face (B, 1, 32, 64) → face (B, 1, 32, 64).

    A small U-net that sees and paints only the lower half of the picture.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96)) -> None:
        super().__init__()
        self.code = Encoder(1, CODE, (8, 16, 32, 48), height=TOP)
        self.down = nn.ModuleList(convolution(a, b) for a, b in zip((3, *widths), widths, strict=False))
        self.film = nn.Linear(CODE, 2 * widths[-1])
        self.middle = convolution(widths[-1], widths[-1])
        up = [convolution(2 * b, a) for a, b in zip((widths[0], *widths), widths, strict=False)]
        self.up = nn.ModuleList(reversed(up))
        self.last = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, seen: Tensor, mouth: Tensor) -> Tensor:
        skips, x = [], seen
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        scale, shift = self.film(self.code(mouth))[..., None, None].chunk(2, 1)
        x = self.middle(x) * (1.0 + scale) + shift
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), skip], 1))
        return torch.sigmoid(self.last(x))


def _masks(faces: Faces) -> Tensor:
    return torch.from_numpy(np.stack([mouth_mask(marks) for marks in faces.landmarks]))[:, None].float()


def _references(faces: Faces, rng: np.random.Generator) -> np.ndarray:
    """(N,) for each photograph another one of the same person, or itself if there is none."""
    rows = np.arange(len(faces))
    same = [rows[(faces.subject == who) & (rows != row)] for row, who in enumerate(faces.subject)]
    return np.array([rng.choice(others) if len(others) else row for row, others in enumerate(same)])


def _paint(network: nn.Module, images: Tensor, masks: Tensor, references: Tensor, drivers: Tensor) -> Tensor:
    """The pictures (B, 1, 64, 64), their lower half painted by the network."""
    seen = torch.cat([images * (1.0 - masks), masks, references], 1)
    return torch.cat([images[..., :TOP, :], network(seen[..., TOP:, :], drivers[..., TOP:, :])], 2)


def build(faces: Faces) -> MouthPainter:
    """The untrained network."""
    return MouthPainter()


def paint(network: MouthPainter, faces: Faces, steps: int) -> Work:
    """Learn to paint the masked mouths, given their own code."""

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(faces), (BATCH,), generator=generator).numpy()
        chosen = faces.take(rows)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        references = _references(faces, np.random.default_rng(seed))[rows]
        images, masks = torch.from_numpy(chosen.images)[:, None], _masks(chosen)
        made = _paint(network, images, masks, torch.from_numpy(faces.images[references])[:, None], images * masks)
        return pyramid_loss(made * masks + images * (1.0 - masks), images) / masks.mean()

    return train_on_loss(network, loss, steps)


STAGES: dict[str, Stage] = {"paint": (2500, paint)}


@functools.cache
def trained() -> MouthPainter:
    """The network with the weights that ship."""
    return load_weights(MouthPainter(), NAME)


@torch.no_grad()
def make(faces: Faces, rng: np.random.Generator) -> Fakes:
    """One new mouth for every photograph, in the position of another person's mouth.

    The mask is the weight of the blend in the rows that the network paints, and 0 above them.
    """
    donors = pick_donors(faces, rng, closeness=40)
    images, masks = torch.from_numpy(np.array(faces.images))[:, None], _masks(faces)
    references = images[_references(faces, rng)]
    made = _paint(trained(), images, masks, references, (images * masks)[donors])[:, 0].numpy()
    weights = np.stack([soften(mouth_mask(marks)) for marks in faces.landmarks])
    weights[:, :TOP] = 0.0
    blended = alpha_blend(made, faces.images, weights)
    return Fakes(blended.clip(0.0, 1.0).astype(np.float32), donors, weights.astype(np.float32))


generator = Generator(
    NAME,
    manipulate=make,
    family="lip synchronisation, inpainting network",
    paper="Prajwal et al. 2020, A lip sync expert is all you need",
)
