"""What does the page of a run say, and what the screen?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import xarray as xr

from bayesdf.analysis import Estimate
from bayesdf.experiments.deniability.figures import figures
from bayesdf.experiments.deniability.results import Results
from bayesdf.experiments.deniability.tables import (
    at_most,
    count_independent,
    denial,
    framing,
    innocent_pictures,
    metrics,
    percents,
    searched_pictures,
    share,
    tables,
)
from bayesdf.experiments.experiment import Presentation, Summary
from bayesdf.faces import CREDIT
from bayesdf.report.page import Drawing, Picture, Section, Table, of_quick, write_page

GLOSSARY = {
    "ledger": "The developer's append-only log: a record for each sample, written before the sample's latent is used.",
    "latent": "The random values that a generator makes an image of.",
    "head": "A signed digest of the ledger so far, published where it can be neither changed nor withdrawn.",
    "evidence": "The public records under a head, and the keys that open their samples.",
    "made, not made": "What evidence says of an image: a recorded sample is the image up to the threshold, or none is.",
    "inversion": "The search for the latent from which a generator would have made an image.",
    "convicted": "Inversion alone says that the generator made the image. What it leaves unexplained, and how unlikely "
    "the latent is, are no more than for nearly all of the generator's own samples.",
    "error": "Root mean square over pixels between an image and what inversion finds, grey values in [0, 1].",
    "distance": "Root mean square over pixels between an image and a recorded sample, grey values in [0, 1].",
    "epoch": "Samples whose keys come from one key; record 0 commits to the keys of all epochs.",
    "unbound": "Samples of the epoch in progress: their keys fit their records, but nothing ties them to record 0 yet.",
    "95 % interval": "Of a share of images: that of Clopper and Pearson. Where images began as photographs the trials "
    "are people, however many images of each there are. Where each image has a latent of its own the trials are "
    "images. The interval holds however alike the images of one person are. It is for this generator and this ledger.",
}


SETTINGS = ("bayesdf", "generator", "weights", "rival", "samples", "images", "steps", "seed", "quick")
"""Attributes of a run that the page shows as its settings."""


def present(tree: xr.DataTree) -> Presentation:
    """What a run shows, from its DataTree."""
    results = Results.from_tree(tree)
    made = tables(results)
    return Presentation(
        metrics=metrics(results),
        tables=made,
        figures=figures(results),
        page=lambda path, pictures: page(path, results, pictures, made),
        summary=Summary(
            title="Share of images (95 % intervals over people, or samples)",
            columns=("", "inversion convicts", "ledger says made"),
            rows=verdicts(results),
            answer=answer(results),
        ),
    )


def verdicts(results: Results) -> list[tuple[str, str, str]]:
    """A row an attack, as printed: inversion's verdict and the ledger's."""
    table = framing(results)
    shares = [
        [percents(Estimate(*ends)) for ends in table[[column, f"{column}.low", f"{column}.high"]].to_numpy()]
        for column in ("convicted", "made")
    ]
    return list(zip(map(str, table.index), *shares, strict=True))


def answer(results: Results) -> str:
    """What the run found, in a few sentences."""
    part = searched_pictures(results)
    convicted, false = share(part, "convicted"), share(part, "made")
    kinds = innocent_pictures(results)
    photographs, generated = kinds["photographs"], kinds["generated"]
    bounds = {origin: share(of, "made") for origin, of in kinds.items()}
    table = denial(results)
    mild = table[(table["alteration"] == "jpeg") & (table["strength"] == 90)].iloc[0]
    denied = Estimate(mild["denied"], mild["denied.low"], mild["denied.high"])
    refused = int((results.cheats["outcome"] == "refused").sum())
    return (
        f"Inversion alone convicts an innocent developer in {percents(convicted)} of {len(part)} pictures whose "
        f"latents an adversary searched for photographs. The ledger calls {percents(false)} of them made. Of all "
        f"{len(photographs)} pictures that began as photographs, of {count_independent(photographs)} people, it calls "
        f"{at_most(bounds['photographs'])} made; of {len(generated)} made of other latents "
        f"{at_most(bounds['generated'])}. A guilty developer with an honest ledger can deny {percents(denied)} of "
        f"images that went through JPEG of quality 90. Of {len(results.cheats) - 1} ways to cheat {refused} are "
        "refused with an error. A latent that was never recorded is not seen at all."
    )


def page(path: Path, results: Results, figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the report."""
    facts = results.facts
    settings = {name: facts[name] for name in SETTINGS}
    write_page(
        path,
        "Framed, or guilty? Plausible deniability by a ledger of latents",
        [
            _model(results),
            _threshold(results, figures, tables),
            _innocence(results, figures, tables),
            _guilt(results, figures, tables),
            _cheating(tables),
            _proof(results),
        ],
        question=f"A picture looks as if {facts['generator']} had made it. Did it? Its developer keeps a ledger.",
        answer=answer(results),
        cautions=of_quick(settings),
        highlights={
            "searched latents: inversion convicts": share(searched_pictures(results), "convicted"),
            "searched latents: ledger says made": share(searched_pictures(results), "made"),
            "second copy of the weights: ledger says made": share(results.fresh, "made"),
        },
        settings=settings,
        credits=[
            f"Photographs: {CREDIT}.",
            "After Zhang, Zhou, Shumailov and Papernot 2020, On attribution of deepfakes, arXiv 2008.09194.",
        ],
        glossary=GLOSSARY,
    )


def _model(results: Results) -> Section:
    facts = results.facts
    return Section(
        "Who can do what",
        [
            f"The developer of {facts['generator']} draws all latents from a ledger of {facts['samples']:,} samples "
            f"and published {facts['heads']} signed heads on the way. The last head, with root {facts['root'][:16]}…, "
            "precedes every accusation. The third party holds the generator with its weights, and the developer's "
            "public key and that head from where they were published. It also holds the evidence, which it does not "
            "trust. The verdicts below use nothing else of the developer's.",
            "The adversary holds a copy of the weights, knows how ledgers work and how accusers invert, and may "
            "publish any picture. It does not know the secret, and cannot add records under a published head. The "
            "guilty developer may do anything: alter its images, write any log, sign any head, keep keys back. "
            "SHA-256, AES, HKDF and Ed25519 are taken to be sound.",
            "The accuser by inversion convicts by two figures: the error that the search leaves, and the energy of the "
            f"latent found. Each may be no more than for {100 * facts['likely']:.1f} % of calibration samples that "
            f"took the same path: error at most {facts['error']:.4f}, energy at most {facts['energy']:.2f}. Every "
            "picture arrives with 8 bits and through JPEG of quality 90, unless a table says otherwise.",
            "The secret of this run was derived from its seed, so that the run can be repeated. It is a toy: anybody "
            "can make it again, and sign with it. It is not in the run folder. The ledger, its heads, the public key "
            "and the evidence are.",
        ],
    )


def _threshold(results: Results, figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame]) -> Section:
    facts = results.facts
    lost = tables["deliveries"]["found"].min()
    note = (
        "Genuine images are found after all of the mild alterations."
        if lost >= 0.99
        else f"The price: of genuine images, {100 * lost:.0f} % are found after the worst of the mild alterations."
    )
    return Section(
        "The threshold",
        [
            f"The threshold is the largest distance at which at most {100 * facts['false_made']:g} % of innocent "
            f"images are predicted to have a sample so near, if the ledger grew to {facts['growth']:,} times its "
            f"{facts['samples']:,} samples. The kind of innocent image that is nearest to samples decides. The "
            "threshold is set on photographs of people and samples that are used for nothing else, before anyone is "
            "judged. The prediction is that of extreme values: the share of distances below t falls as a power of t, "
            "estimated from the smallest of them, and the chance of a near one grows with the number of samples. The "
            f"threshold here is {facts['threshold']:.4f}. {note}",
            Picture(
                figures["distances"], "How far images are from their own sample, and innocent ones from any sample."
            ),
            Table(tables["deliveries"], "Genuine calibration images within the threshold, by way of delivery."),
            Table(tables["threshold"], "What each kind of innocent image allows: the tail of its distances."),
            Picture(
                figures["false_made"],
                "To the right of the ledger's own size there is only the prediction. It takes all images of a kind to "
                "be like the calibration images. The points show how far that holds.",
            ),
        ],
    )


def _innocence(results: Results, figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame]) -> Section:
    kinds = innocent_pictures(results)
    photographs, generated = kinds["photographs"], kinds["generated"]
    copied = share(results.copied, "made")
    return Section(
        "Framing the innocent",
        [
            "Searched latents: the adversary inverts a target with its own copy of the generator, makes the latent "
            "likely, and publishes what the generator makes of it. That picture is a sample like any other. Inversion "
            "cannot tell it from a guilty one. Changed photographs: each pixel is moved towards what the generator "
            "can make, by no more than a budget, in two rounds of search. A second copy: anybody who has the weights "
            "runs the generator on a new latent.",
            Picture(figures["framed"], "The first of each attack, not chosen."),
            Picture(figures["verdicts"], "Orange: the innocent convicted by inversion alone. Blue: by the ledger."),
            Table(
                tables["framing"],
                "All attacks. Latent distance: from the latent that inversion finds to the nearest recorded one.",
            ),
            Picture(figures["latents"], "Low: the latent is recorded. Left: the picture is recorded."),
            f"Of {len(photographs)} pictures that began as photographs of {count_independent(photographs)} people, "
            f"{at_most(share(photographs, 'made'))} were called made. Of {len(generated)} pictures of other latents "
            f"{at_most(share(generated, 'made'))} were. This is how often an innocent developer is not cleared. The "
            "bound for photographs is over people, since alterations of one photograph, and photographs of one "
            "person, need not be independent. Only more people would lower it.",
            "The worst case is an adversary to whom the evidence was shown. Whoever holds it can make every opened "
            f"sample again ({100 * float(results.facts['copies_identical']):.0f} % of those tried were the "
            "developer's, bit for bit) and publish it. The ledger then says made, and is right: it is the developer's "
            "image, though the developer did not publish it. The verdict says who made an image, not who spread it. "
            "Such a copy may also be changed up to the threshold: moved "
            f"{100 * results.copied['share'].median():.0f} % of the way towards another face, {percents(copied)} of "
            "copies were still called made. Look at the sample beside the image.",
        ],
    )


def _guilt(results: Results, figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame]) -> Section:
    denied = results.guilty[~results.guilty["made"]]
    nearest = (
        f"in {percents(share(denied.assign(cluster=denied['truth']), 'right'))} of denied images"
        if len(denied)
        else "in all images"
    )
    return Section(
        "A guilty developer, an honest ledger",
        [
            "These are the developer's own samples, altered before they were found. Where no sample is within the "
            "threshold the developer can deny with a ledger that hides nothing. The dashed line shows how often "
            f"another sample is nearer than the right one. The right one is still the nearest {nearest}. The ledger "
            "then has a suspect, but at a distance at which an innocent image might have one too. Evidence does not "
            "undo a crop or a change of brightness. A third party who can align the image first should do so.",
            Picture(figures["deniability"], "Stronger alterations to the right."),
            Table(
                tables["deniability"],
                "Denied: no sample within the threshold. Nearest right: share of images whose "
                "nearest sample is the one they are.",
            ),
        ],
    )


def _cheating(tables: Mapping[str, pd.DataFrame]) -> Section:
    frame = tables["cheats"].rename(columns={"as_expected": "as documented"}).drop(columns="expected")
    return Section(
        "Cheating ledgers",
        [
            "Each cheat was done to a copy of the ledger, with the developer's secret at hand, and brought to the "
            "third party. Refused: there is no verdict, and the error says what was wrong. A developer who brings such "
            "evidence has not cleared itself. Flagged: there is a verdict, but the keys of some samples cannot be tied "
            "to record 0 until their epoch is full. The third party then waits for a later head.",
            Table(frame, "What was done, and what the third party gets."),
        ],
    )


def _proof(results: Results) -> Section:
    people = count_independent(innocent_pictures(results)["photographs"])
    lines: Sequence[str] = [
        "Made proves that a latent to which the developer had committed before the accusation gives the image, up to "
        "the threshold. Not made proves that every sample recorded under the head was made again, and none is the "
        "image, up to the threshold. Both rest on a head that was public before the accusation, and on a generator "
        "that is the accused one. No record under a published head can be changed, removed, moved, repeated or added "
        "unnoticed.",
        "It cannot prove that every latent was recorded. A developer who runs the generator on any other latent gets "
        "not made, unless a recorded sample is near by chance. The table of cheats shows this, and no ledger can see "
        "it. Only control of the place where the generator runs prevents it. Evidence cannot tell one copy of the "
        "weights from another: not made clears the ledger's owner, not the generator.",
        "It does not cover images altered beyond the threshold, records after the last head before the accusation, a "
        "leaked or opened key in other hands, nor a second ledger if neither its key nor its head was ever published. "
        "Times are the developer's clock; only the place of publication dates a head.",
        f"The rates are those of one generator ({results.facts['generator']}), one ledger of "
        f"{results.facts['samples']:,} samples and faces of {people} people. "
        "Intervals tell how far other people, or other latents, might differ; not another generator, nor another "
        "ledger. A stronger search than the adversary's here would convict more of the changed photographs.",
    ]
    return Section("What evidence proves, and what it cannot", lines)
