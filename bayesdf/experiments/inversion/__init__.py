"""Which generator made this picture? Ask each of them to make it again.

    python -m bayesdf.experiments.inversion

Every candidate generator is inverted for every picture, and how nearly each of them can make it again tells the source:
Zhang, Zhou, Shumailov and Papernot, "On attribution of deepfakes" (2020). Beside it a classifier that learnt the
sources from pictures directly, on clean pictures, on disturbed ones, and under attack.
"""
