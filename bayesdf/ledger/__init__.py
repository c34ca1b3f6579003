"""Did this generator make that image? A ledger lets its developer answer, and others check the answer.

A developer who keeps a ledger takes every sample's entropy from `draw`: it comes from a secret by a keyed pseudo-random
function, and a record that commits to it is on the disk before it is used. Heads, signed digests of the log so far, are
published as it grows. When an image is said to come from the generator, the developer opens the recorded entropies
(`gather`), and a third party makes the samples again and compares (`verify`).

After Zhang, Zhou, Shumailov and Papernot 2020, "On attribution of deepfakes", arXiv 2008.09194, the section on
plausible deniability, where a developer's generator takes its entropy from a keyed pseudo-random source so as to
disown images. The log is that of RFC 6962, "Certificate Transparency": Merkle tree, signed heads, proofs of inclusion
and consistency. Keys are derived by HKDF (RFC 5869), heads are signed with Ed25519 (RFC 8032).

Threat model
------------
The third party holds three things that do not come from the developer's hand after the accusation: the generator with
its weights, the developer's public key, and a head that was published before the accusation, at a place that dates it
and that its author cannot change. SHA-256, AES, HKDF and Ed25519 are taken to be sound. Then:

- *made* means: entropy that the developer committed to before the accusation gives the image, up to the threshold.
  The developer cannot have chosen that entropy to fit the image: it is determined by a 256-bit key. For epochs opened
  whole the key was committed to when the ledger began; for the epoch in progress, when the record was written. Trying
  keys until an entropy happens to be near to a given one is open to a developer, and hopeless in more than a few
  dimensions.
- *not made* means: every sample recorded under the head was made again, and none is the image, up to the threshold.
- An adversary without the secret, who searches the latent space until the generator seems to have made a picture,
  gets *not made*: the entropy found is not in the ledger, and no record can be added under a published head.
- Once a head is out, no record under it can be changed, taken out, moved or put in without one of the errors below.

What evidence cannot show:

- **Entropy outside the ledger.** A developer who runs the generator on any other entropy, and records nothing, gets
  *not made*. The ledger shows what was recorded, not that all was recorded. Only control of the place where the
  generator runs (a service that takes entropy from `draw` alone, attested hardware) closes this.
- **A second copy of the weights.** Whoever else has them makes images that no ledger knows. *Not made* clears the
  ledger's owner, not the generator.
- **Post-processing.** A sample changed by more than the threshold (cropped, turned, repainted) is not found; a
  threshold wide enough for all that would find neighbours of the samples that nobody made.
- **A leaked secret.** Its holder can make samples of the ledger before their owner does, and sign heads. The same is
  true, within them, of epochs and records once opened: what is made from them later is not their owner's doing, so
  open under a head that precedes the accusation, and open to as few as need it.
- **A second ledger.** A developer may keep two, and show the one that suits. Hence public keys and first heads are to
  be published when a generator is; two ledgers under one key are a `ForkError` to whoever sees heads of both.
- **Withheld heads.** Records after the last head before the accusation are not covered: publish often.
- **Time.** Times in records and heads are those of the developer's clock. Only the place of publication dates a head.

Evidence tells which entropies were drawn, hence every sample under the head, to whoever gets it: images made in
confidence should be opened to a trusted third party only.
"""

from bayesdf.ledger.entropy import load_secret, new_secret
from bayesdf.ledger.evidence import Evidence, Verdict, gather, load_evidence, verify, verify_all
from bayesdf.ledger.faults import (
    ForkError,
    IncompleteError,
    LedgerError,
    LockedError,
    ReorderedError,
    ReplayedError,
    SignatureError,
    TamperedError,
    TornError,
    TruncatedError,
)
from bayesdf.ledger.heads import (
    Head,
    check,
    check_consistency,
    check_head,
    check_inclusion,
    prove_consistency,
    prove_inclusion,
    publish,
)
from bayesdf.ledger.log import create, draw, recall, repair
from bayesdf.ledger.records import Log

__all__ = [
    "Evidence",
    "ForkError",
    "Head",
    "IncompleteError",
    "LedgerError",
    "LockedError",
    "Log",
    "ReorderedError",
    "ReplayedError",
    "SignatureError",
    "TamperedError",
    "TornError",
    "TruncatedError",
    "Verdict",
    "check",
    "check_consistency",
    "check_head",
    "check_inclusion",
    "create",
    "draw",
    "gather",
    "load_evidence",
    "load_secret",
    "new_secret",
    "prove_consistency",
    "prove_inclusion",
    "publish",
    "recall",
    "repair",
    "verify",
    "verify_all",
]
