"""What is a method of maps? Settings, and how a batch of images becomes a map of each quantity."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bayesdf.inference.maps.predictive import Predictive, Values
from bayesdf.inference.posterior import Posterior


@dataclass(frozen=True)
class MapMethod:
    """The settings of a method, as a frozen dataclass.

    Attributes
    ----------
    name : str
        What `uncertainty_maps` calls it.
    per : str
        What the unit of the quantity is divided by; empty if by nothing.
    signed : bool
        Whether values below zero mean that a place lowers the quantity. Otherwise there are none.
    """

    name: ClassVar[str]
    per: ClassVar[str] = ""
    signed: ClassVar[bool] = False

    def asked(self, posterior: Posterior, images: Tensor) -> Posterior:
        """The posterior that is asked about the images: this one, or the same with another form of its network.

        Parameters
        ----------
        images : Tensor (B, 3, H, W)
            One or two of them, on the CPU.

        Raises
        ------
        BayesdfError
            The network lacks what the method needs.
        """
        return posterior

    def maps(self, predictive: Predictive, images: Tensor, indices: range) -> Values:
        """A map (B, h, w) of each quantity for images (B, 3, H, W), whose places in the data set are `indices`.

        The map of an image depends on no other image. What is random in it depends on its index and the seed.
        """
        raise NotImplementedError
