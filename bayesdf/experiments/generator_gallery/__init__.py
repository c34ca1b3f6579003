"""What do the generators' samples look like, and how far are they from photographs?

    python -m bayesdf.experiments.generator_gallery

Every generator draws samples. Their distance to photographs of people held out says how good they are. Photographs of
other people, sharp and blurred, stand beside them: the least and a large distance that one may expect.
"""
