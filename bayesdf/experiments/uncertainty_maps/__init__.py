"""Where in the picture is a detector unsure, is that place true, and does it betray who made the fake?

    python -m bayesdf.experiments.uncertainty_maps

Maps of P(fake) and of total, aleatoric and epistemic uncertainty are compared with the pixels that were changed, beside
rivals that look at no uncertainty. A dense detector learns these pixels. Regions of the face and whole maps are asked
for the source.
"""
