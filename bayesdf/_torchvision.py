"""The one door to torchvision and timm: ``from bayesdf._torchvision import timm, torchvision``.

PyPI's torchvision wheel for Linux is linked against CUDA. Beside a CPU-only torch its library of compiled operators
does not load, and ``import torchvision`` then fails on ``operator torchvision::nms does not exist``, and timm with
it. Declaring the schemas of the two operators that torchvision's Python code refers to makes the import, the models
and the transforms work; the compiled operators themselves (and the JPEG codec) stay unavailable. Where the library
loads, nothing is declared.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

_library: torch.library.Library | None = None  # the declarations live as long as this object


def _operators_load() -> bool:
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # nothing to mend; the import below says that torchvision is missing
    for folder in spec.submodule_search_locations:
        for library in [*Path(folder).glob("_C*.so"), *Path(folder).glob("_C*.pyd")]:
            try:
                torch.ops.load_library(str(library))
            except OSError:
                continue
            return True
    return False


if not _operators_load():
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
import torchvision  # noqa: E402

__all__ = ["timm", "torchvision"]
