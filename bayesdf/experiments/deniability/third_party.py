"""What does a third party see, and what does it say of an image?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from bayesdf import ledger
from bayesdf.experiments.deniability.pictures import Images, weights_digest
from bayesdf.generators import Generator
from bayesdf.ledger import Evidence, Head, Verdict
from bayesdf.ledger.keys import expand_to_latents, record_key


@dataclass(frozen=True)
class ThirdParty:
    """What a third party judges by: its own copy of the generator, and what was published or handed over."""

    generator: Generator
    evidence: Evidence
    head: Head
    key: str

    def judge(self, images: Images, threshold: float, latents: NDArray[np.float32] | None = None) -> list[Verdict]:
        return ledger.verify_all(
            self.evidence,
            images,
            self.head,
            self.generator,
            self.key,
            threshold=threshold,
            latents=latents,
            weights=weights_digest(self.generator),
        )


def read_published(folder: Path) -> tuple[Evidence, Head, str]:
    """Evidence, the newest head and the public key. Nothing else of the developer's is read."""
    head = Head.from_json((folder / "heads.jsonl").read_text().splitlines()[-1])
    return ledger.load_evidence(folder / "evidence.json"), head, (folder / "public_key.txt").read_text().strip()


def with_verdicts(frame: pd.DataFrame, verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The rows, with what the ledger says of each in further columns."""
    frame = frame.assign(
        made=[verdict.made for verdict in verdicts],
        index=[verdict.index for verdict in verdicts],
        distance=[verdict.distance for verdict in verdicts],
    )
    if verdicts[0].latent_distance is not None:
        frame["latent_distance"] = [verdict.latent_distance for verdict in verdicts]
    if "truth" in frame:
        frame["right"] = frame["index"] == frame["truth"]
    return frame


def opened_latents(evidence: Evidence, records: Sequence[int]) -> Tensor:
    """The latents of records that evidence opens: anyone who has the evidence can make these samples again."""
    size = int(json.loads(evidence.records[0])["epoch_size"])
    keys = [
        bytes.fromhex(evidence.keys[record])
        if record in evidence.keys
        else record_key(bytes.fromhex(evidence.epochs[record // size][0]), record)
        for record in records
    ]
    return expand_to_latents(keys, int(json.loads(evidence.records[0])["latent_dim"]))
