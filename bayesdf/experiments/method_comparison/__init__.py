"""Which way to a posterior serves a detector best, and at what price?

    python -m bayesdf.experiments.method_comparison

Every method starts from the same point estimate, has the same priors over the classifier and sees the same training
images, from which one generator is left out. Judged is how right and how well calibrated each is on people it never
saw, whether it is unsure of the generator that it never saw, and what training and each draw cost.
"""
