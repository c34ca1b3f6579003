"""Real photographs, aligned by landmarks."""

from bayesdf.faces.align import LANDMARKS, SIZE, TEMPLATE, similarity_transform, warp
from bayesdf.faces.people import people
from bayesdf.faces.photographs import CREDIT, Faces, photographs

__all__ = ["CREDIT", "LANDMARKS", "SIZE", "TEMPLATE", "Faces", "people", "photographs", "similarity_transform", "warp"]
