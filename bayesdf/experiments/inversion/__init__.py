"""Which generator made this picture, told by asking each of them to make it again?

    python -m bayesdf.experiments.inversion

Every candidate generator is inverted for every picture. How nearly each of them can make it again tells the source:
Zhang, Zhou, Shumailov and Papernot, "On attribution of deepfakes" (2020). Beside it stands a classifier that learnt the
sources from pictures directly. Both judge clean pictures, disturbed ones, and pictures under attack.
"""
