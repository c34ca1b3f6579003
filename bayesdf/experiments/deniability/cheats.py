"""What may a guilty developer do to a ledger, and what does the third party then get?"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from bayesdf import ledger
from bayesdf.data import common_path_grey
from bayesdf.experiments.deniability.developer import HEADS, Developer
from bayesdf.experiments.deniability.pictures import Images
from bayesdf.experiments.deniability.third_party import ThirdParty, opened_latents
from bayesdf.experiments.seeds import seed_of
from bayesdf.ledger import Evidence, Head, Verdict
from bayesdf.ledger.keys import commit, record_key
from bayesdf.ledger.records import encode_record


@dataclass(frozen=True)
class Cheat:
    """What a developer tries, the outcome or error that the documentation promises, and a function that tries it."""

    name: str
    expected: str
    attempt: Callable[[], Verdict | None]


def try_cheats(folder: Path, developer: Developer, third: ThirdParty, threshold: float, seed: int) -> pd.DataFrame:
    """Try each cheat on a copy of the ledger: a row a cheat, with what the third party then gets.

    All happens under an earlier head, which ends within an epoch, so that its samples are made again quickly.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator, key, secret = third.generator, third.key, developer.secret
    head = developer.heads[HEADS // 3 - 1]
    honest = ledger.gather(developer.path, secret, head)
    text = list(honest.records)
    size = int(json.loads(text[0])["epoch_size"])
    guilty, late = (size + size // 2, head.size - 2)
    image = common_path_grey(generator.pictures(opened_latents(honest, [guilty])))[0]
    fresh = common_path_grey(generator.pictures(generator.sample_latent(1, seed_of(seed, "outside"))))[0]
    own_key = hashlib.sha256(b"a key of the developer's choice" + secret).digest()

    def judge(evidence: Evidence, against: Head = head, picture: Images = image) -> Verdict:
        return ledger.verify(evidence, picture, against, generator, key, threshold=threshold, progress=False)

    def records(lines: Sequence[str]) -> Evidence:
        return replace(honest, records=tuple(lines))

    def edited(at: int) -> list[str]:
        """The lines with the commitment of a record replaced, and all digests left as they were."""
        record = json.loads(text[at]) | {"commitment": commit(own_key).hex()}
        return [*text[:at], json.dumps(record, sort_keys=True, separators=(",", ":")), *text[at + 1 :]]

    def forged(at: int) -> list[str]:
        """The same, with all digests made right again, so that the log is sound in itself."""
        return _rechained(edited(at), at)

    def exchanged() -> list[str]:
        return [*text[:guilty], text[guilty + 1], text[guilty], *text[guilty + 2 :]]

    def without(at: int) -> list[str]:
        return [*text[:at], *text[at + 1 :]]

    def swapped() -> tuple[Path, Head, Evidence]:
        """A key of the developer's choice committed to in the epoch in progress, before the head was published."""
        path = _log(folder / "swapped.ledger", forged(late))
        signed = ledger.publish(path, secret)
        return path, signed, replace(records(forged(late)), head=signed, keys={**honest.keys, late: own_key.hex()})

    def filled(opened: bool) -> Verdict:
        """The same ledger once that epoch is full, the epoch's key opened or each record's own."""
        path, earlier, evidence = swapped()
        epoch = late // size
        rest = (epoch + 1) * size - earlier.size
        if rest:
            ledger.draw(path, secret, generator, rest)
        signed = ledger.publish(path, secret)
        lines = tuple(path.read_text().splitlines())
        epochs = dict(honest.epochs)
        keys = dict(evidence.keys)
        if opened:
            epochs[epoch] = third.evidence.epochs[epoch]
        else:
            epoch_key = bytes.fromhex(third.evidence.epochs[epoch][0])
            keys |= {r: record_key(epoch_key, r).hex() for r in range(earlier.size, signed.size)}
        late_image = common_path_grey(generator.pictures(opened_latents(honest, [late])))[0]
        return judge(Evidence(signed, lines, epochs, keys), signed, late_image)

    def forked() -> Verdict:
        path = _log(folder / "forked.ledger", forged(guilty))
        other = ledger.publish(path, secret)
        return judge(replace(records(forged(guilty)), head=other))

    def second(owner: bytes) -> tuple[Head, Evidence]:
        path = folder / f"second {owner.hex()[:8]}.ledger"
        path.unlink(missing_ok=True)
        ledger.create(path, owner, generator, epoch_size=size, epochs=16)
        ledger.draw(path, owner, generator, 5)
        signed = ledger.publish(path, owner)
        return signed, ledger.gather(path, owner, signed)

    def outside() -> Verdict:
        """An honest log with nothing open to doubt, filled up to the end of an epoch; the image is not from it."""
        path = _log(folder / "outside.ledger", text)
        rest = (late // size + 1) * size - head.size
        if rest:
            ledger.draw(path, secret, generator, rest)
        signed = ledger.publish(path, secret)
        return judge(ledger.gather(path, secret, signed), signed, fresh)

    def late_swap() -> Verdict:
        _, signed, evidence = swapped()
        return judge(evidence, signed, common_path_grey(generator.pictures(opened_latents(honest, [late])))[0])

    stranger = hashlib.sha256(b"another" + secret).digest()
    old = developer.heads[0]
    other_key = dict(honest.epochs) | {1: (own_key.hex(), honest.epochs[1][1])}
    all_but_one = [record for record in range(1, head.size) if record != guilty]
    cheats = [
        Cheat("none: an honest ledger", "made", lambda: judge(honest)),
        Cheat("a latent from outside the ledger", "not made", outside),
        Cheat("records after the image's cut off", "TruncatedError", lambda: judge(records(text[:guilty]))),
        Cheat("the image's record taken out", "TruncatedError", lambda: judge(records(without(guilty)))),
        Cheat(
            "taken out, the rest numbered and chained anew",
            "TruncatedError",
            lambda: judge(records(_rechained(without(guilty), guilty))),
        ),
        Cheat("the record rewritten", "TamperedError", lambda: judge(records(edited(guilty)))),
        Cheat("rewritten, all digests made right", "ForkError", lambda: judge(records(forged(guilty)))),
        Cheat("two records exchanged", "ReorderedError", lambda: judge(records(exchanged()))),
        Cheat(
            "another record repeated in its place",
            "ReplayedError",
            lambda: judge(records([*text[:guilty], text[guilty - 1], *text[guilty + 1 :]])),
        ),
        Cheat(
            "evidence under a head from before the image",
            "ReplayedError",
            lambda: judge(ledger.gather(developer.path, secret, old)),
        ),
        Cheat(
            "an old head shown as the current one",
            "ReplayedError",
            lambda: ledger.check_consistency(head, old, [], key),
        ),
        Cheat(
            "the key of the image's epoch withheld",
            "IncompleteError",
            lambda: judge(replace(honest, epochs={e: pair for e, pair in honest.epochs.items() if e != 1})),
        ),
        Cheat(
            "every record opened but the image's",
            "IncompleteError",
            lambda: judge(ledger.gather(developer.path, secret, head, only=all_but_one)),
        ),
        Cheat("another key given for the epoch", "TamperedError", lambda: judge(replace(honest, epochs=other_key))),
        Cheat(
            "keys of two records of the epoch in progress exchanged",
            "TamperedError",
            lambda: judge(replace(honest, keys={**honest.keys, late: honest.keys[late - 1]})),
        ),
        Cheat("a key of one's own, in the epoch in progress", "not made, flagged", late_swap),
        Cheat("the same, once the epoch is full and opened", "TamperedError", lambda: filled(True)),
        Cheat("the same, full but opened record by record", "IncompleteError", lambda: filled(False)),
        Cheat("two histories of the same length", "ForkError", forked),
        Cheat("a second ledger under the same key", "ForkError", lambda: judge(second(secret)[1])),
        Cheat("a head signed by another", "SignatureError", lambda: judge(second(stranger)[1])),
        Cheat(
            "the published head edited",
            "SignatureError",
            lambda: judge(honest, replace(head, root=hashlib.sha256(b"another root").hexdigest())),
        ),
    ]
    return pd.DataFrame([_outcome(one) for one in cheats])


def _outcome(one: Cheat) -> dict[str, object]:
    error = message = ""
    try:
        verdict = one.attempt()
    except ledger.LedgerError as refused:
        outcome, error, message = "refused", type(refused).__name__, str(refused)
    else:
        assert verdict is not None, one.name
        outcome = "made" if verdict.made else "not made, flagged" if verdict.unbound else "not made"
        message = f"{verdict.unbound} of {verdict.compared} samples are not yet bound to record 0"
    return {
        "cheat": one.name,
        "outcome": outcome,
        "error": error,
        "message": message,
        "expected": one.expected,
        "as_expected": one.expected in (outcome, error),
    }


def _rechained(lines: Sequence[str], at: int) -> list[str]:
    """Numbers, chain and digests of all records from `at` on made right: what a forger who knows the format writes."""
    out = list(lines[:at])
    for number, line in enumerate(lines[at:], at):
        record = json.loads(line) | {"record": number, "previous": json.loads(out[-1])["digest"]}
        del record["digest"]
        out.append(encode_record(record).decode())
    return out


def _log(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
