"""The search that methods share: its settings, the problem that it solves, the loop, the schedule, and checkpoints."""

from bayesdf.inference.training.settings import Training

__all__ = ["Training"]
