"""Which generator made a fake, told from a binary detector's uncertainty alone?

    python -m bayesdf.experiments.source_attribution

A detector learns real against fake. Its posterior draws are then asked about people it never saw: how good and how well
calibrated is it, is it unsure because an image is ambiguous or because the draws disagree, and does that uncertainty
tell the generator? The posterior is of real against fake alone; the weights that it starts from have learnt the sources
of training people's pictures (`warm_start`). The question is that of Kose, Rhodes, Ciftci and Demir, "Is It Certainly a
Deepfake?" (2025).
"""
