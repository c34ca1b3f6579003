"""Real photographs, aligned by landmarks."""

from bayesdf.faces.align import LANDMARKS, SIZE, TEMPLATE, similarity_transform, warp
from bayesdf.faces.people import people
from bayesdf.faces.photographs import CREDIT, Faces, photographs
from bayesdf.faces.regions import REGIONS, region_masks

__all__ = [
    "CREDIT",
    "LANDMARKS",
    "REGIONS",
    "SIZE",
    "TEMPLATE",
    "Faces",
    "people",
    "photographs",
    "region_masks",
    "similarity_transform",
    "warp",
]
