"""Can an innocent developer be framed, and can a guilty one deny?

    python -m bayesdf.experiments.deniability

One generator is accused. Its developer keeps a ledger of every sample's latent (`bayesdf.ledger`).
Adversaries who hold a copy of the public weights publish pictures that the generator seems to have made; inversion
alone and the developer's evidence are asked who made them. Then the developer is guilty: its own samples are blurred,
cropped, recompressed, and its ledger is cut, rewritten, shuffled and forked. The question is that of Zhang, Zhou,
Shumailov and Papernot 2020, "On attribution of deepfakes" (arXiv 2008.09194), on plausible deniability.

A real secret comes from `ledger.new_secret` and is random. Here it is derived from the seed, so that a run can be
repeated: it protects nothing, and serves no other ledger.
"""
