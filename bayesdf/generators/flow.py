"""A normalizing flow: every step can be undone exactly, so that an image that it made gives back its exact latent.

An injective flow (Brehmer and Cranmer 2020, "Flows for simultaneous manifold learning and density estimation"): affine
couplings (Dinh, Sohl-Dickstein and Bengio 2017, "Density estimation using Real NVP") give the joint density of the
photographs' principal components; additive couplings of convolutions (Dinh, Krueger and Bengio 2015, NICE) then bend
the plane of those components into the faces' surface. The first are fitted by maximum likelihood, the second against a
critic, which together is a Flow-GAN (Grover, Dhar and Ermon 2018).
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdf.faces import Faces
from bayesdf.generators.generator import Generator
from bayesdf.generators.networks import Eigenfaces, load_weights
from bayesdf.generators.stages import Stage, Work, train_adversarially, train_on_loss, training_faces

NAME = "flow"
LATENT = 96
BLOCK = 4
"""Side of the blocks of pixels that become channels."""


class AffineCoupling(nn.Module):
    """Half of the values scaled and shifted by what a network makes of the other half (Real NVP, equations 4 to 8)."""

    order: Tensor

    def __init__(self, number: int, width: int = 160) -> None:
        super().__init__()
        order = torch.randperm(LATENT, generator=torch.Generator().manual_seed(number))
        self.register_buffer("order", order, persistent=False)
        self.net = nn.Sequential(nn.Linear(LATENT // 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.head = nn.Linear(width, LATENT)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        order = self.order
        fixed, moved = x[:, order].chunk(2, 1)
        log_scale, shift = self.head(self.net(fixed)).chunk(2, 1)
        log_scale = torch.tanh(log_scale)
        moved = (moved - shift) * torch.exp(-log_scale) if inverse else moved * torch.exp(log_scale) + shift
        return torch.cat([fixed, moved], 1)[:, order.argsort()], log_scale.sum(1)


class AdditiveCoupling(nn.Module):
    """Half of the channels shifted by what convolutions make of the other half."""

    order: Tensor

    def __init__(self, number: int, channels: int = BLOCK * BLOCK, width: int = 64) -> None:
        super().__init__()
        order = torch.randperm(channels, generator=torch.Generator().manual_seed(100 + number))
        self.register_buffer("order", order, persistent=False)
        self.net = nn.Sequential(
            nn.Conv2d(channels // 2, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, channels // 2, 3, padding=1),
        )  # fmt: skip
        last = self.net[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, inverse: bool = False) -> Tensor:
        order = self.order
        fixed, moved = x[:, order].chunk(2, 1)
        shift = self.net(fixed)
        return torch.cat([fixed, moved - shift if inverse else moved + shift], 1)[:, order.argsort()]


class Flow(nn.Module):
    """(B, 96) ↔ (B, 1, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.density = nn.ModuleList(AffineCoupling(number) for number in range(8))
        self.plane = Eigenfaces(LATENT)
        self.surface = nn.ModuleList(AdditiveCoupling(number) for number in range(8))

    def components(self, code: Tensor) -> Tensor:
        """Latents (B, 96) → principal components (B, 96)."""
        for coupling in self.density:
            code, _ = coupling(code)
        return code

    def bend(self, components: Tensor) -> Tensor:
        """Principal components (B, 96) → images (B, 1, 64, 64)."""
        x = F.pixel_unshuffle(self.plane.picture(components), BLOCK)
        for coupling in self.surface:
            x = coupling(x)
        return F.pixel_shuffle(x, BLOCK)

    def decode(self, code: Tensor) -> Tensor:
        return self.bend(self.components(code))

    def log_density(self, components: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, 96) of principal components, and the logarithm of their density up to a constant (B,)."""
        volume = components.new_zeros(len(components))
        for coupling in reversed(self.density):
            components, log_scale = coupling(components, inverse=True)
            volume = volume - log_scale
        return components, volume - 0.5 * components.pow(2).sum(1)

    def encode(self, images: Tensor) -> Tensor:
        """The latents (B, 96) of images; for an image off the surface, that of its nearest point on the plane."""
        x = F.pixel_unshuffle(images, BLOCK)
        for coupling in reversed(self.surface):
            x = coupling(x, inverse=True)
        flat = F.pixel_shuffle(x, BLOCK).flatten(1) - self.plane.mean
        # The axes are orthogonal only as far as float16 keeps them so: solve, do not just project.
        components = torch.linalg.solve(self.plane.axes @ self.plane.axes.T, (flat @ self.plane.axes.T).T).T
        return self.log_density(components / self.plane.deviation)[0]


def build(faces: Faces) -> Flow:
    """The untrained network, its plane that of the photographs' principal components."""
    network = Flow()
    network.plane.fit(training_faces()[::8])
    return network


def likelihood(network: Flow, faces: Faces, steps: int) -> Work:
    """Fit the density of the principal components; noise of a tenth of their deviations keeps it smooth."""
    components = network.plane.code(training_faces())

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(components), (128,), generator=generator)
        noise = 0.2 * torch.randn(128, LATENT, generator=generator)
        return -network.log_density(components[rows] + noise)[1].mean() / LATENT

    return train_on_loss(network, loss, steps, network.density.parameters(), rate=1e-3)


def compete(network: Flow, faces: Faces, steps: int) -> Work:
    """Bend the plane until a critic takes its points for photographs."""
    return train_adversarially(
        network,
        lambda number, generator: network.decode(torch.randn(number, LATENT, generator=generator)),
        lambda truth, generator: network.bend(network.plane.code(truth)),
        steps,
        network.surface.parameters(),
        rate=1e-3,
    )


STAGES: dict[str, Stage] = {"likelihood": (3000, likelihood), "compete": (5000, compete)}


@functools.cache
def trained() -> Flow:
    """The network with the weights that ship."""
    return load_weights(Flow(), NAME)


generator = Generator(
    NAME,
    LATENT,
    decode=lambda code: trained().decode(code),
    encode=lambda images: trained().encode(images),
    exact=True,
    family="whole-image synthesis, normalizing flow",
    paper="Dinh, Sohl-Dickstein and Bengio 2017, Density estimation using Real NVP",
)
