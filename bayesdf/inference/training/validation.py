"""How good is a fit on the validation images, after an epoch?"""

import torch
from torch.func import functional_call

from bayesdf.inference.training.feature_cache import ValidationBatches
from bayesdf.inference.training.objective import Objective
from bayesdf.inference.training.problem import Problem, class_weights

VALIDATION_DRAWS = 8
"""Draws of the objective whose mean prediction is judged."""


@torch.no_grad()
def validate(problem: Problem, objective: Objective, validation: ValidationBatches) -> tuple[float, float]:
    """Class-balanced negative log-likelihood of the mean prediction, and balanced accuracy."""
    devices = [problem.device] if problem.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(problem.settings.seed)  # the same noise every epoch: epochs differ by their state alone
        own = {name for name, _ in problem.parts.suffix.named_parameters()}
        own |= {name for name, _ in problem.parts.suffix.named_buffers()}
        draws = [objective.draw() for _ in range(VALIDATION_DRAWS)]
        draws = [{name: value for name, value in draw.items() if name in own} for draw in draws]
    probabilities, labels = [], []
    for features, label in validation:
        logits = torch.stack([functional_call(problem.parts.suffix, draw, features) for draw in draws])
        probabilities.append(logits.softmax(-1).mean(0))
        labels.append(label)
    probability, label = torch.cat(probabilities).flatten(0, -2), torch.cat(labels).flatten()
    classes = probability.shape[1]
    weights = class_weights(label.cpu(), classes) if problem.settings.class_balanced else torch.ones(classes)
    weight = weights.to(label.device)[label]
    nll = -(weight * probability.gather(1, label[:, None])[:, 0].clamp_min(1e-12).log()).mean()
    accuracy = (weight * (probability.argmax(1) == label)).mean()
    return float(nll), float(accuracy)
