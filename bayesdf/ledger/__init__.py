"""Did this generator make that image? A ledger lets its developer answer, and others check the answer.

A developer who keeps a ledger takes every sample's latent from `draw`. The latent comes from a secret by a keyed
pseudo-random function. A record that commits to it is on the disk before the latent is used. Heads are signed digests
of the log so far; the developer publishes them as the log grows. When an image is said to come from the generator, the
developer opens the recorded latents (`gather`). A third party makes the samples again and compares (`verify`).

The method is that of Zhang, Zhou, Shumailov and Papernot 2020, "On attribution of deepfakes", arXiv 2008.09194, section
on plausible deniability: a generator takes its entropy, here the latent, from a keyed pseudo-random source, and its
developer can disown images. The log is that of RFC 6962, "Certificate Transparency": Merkle tree, signed heads, proofs
of inclusion and consistency. Keys are derived by HKDF (RFC 5869). Heads are signed with Ed25519 (RFC 8032).

Threat model
------------
The third party holds three things that do not come from the developer after the accusation: the generator with its
weights, the developer's public key, and a head. The head was published before the accusation, at a place that dates it
and whose content its author cannot change. SHA-256, AES, HKDF and Ed25519 are assumed to be
sound. Then:

- *made* means: a latent that the developer committed to before the accusation gives the image, up to the threshold.
  The developer cannot have chosen that latent to fit the image, because a 256-bit key determines it. For epochs opened
  whole, the key was committed to when the ledger began; for the epoch in progress, when the record was written. A
  developer may try keys until a latent is near a given one. This is hopeless in more than a few dimensions.
- *not made* means: every sample recorded under the head was made again, and none is the image, up to the threshold.
- An adversary without the secret may search the latent space until the generator seems to have made a picture. The
  answer is *not made*: the latent found is not in the ledger, and no record can be added under a published head.
- Once a head is published, no record under it can be changed, removed, moved or added without one of the errors below.

What evidence cannot show:

- **Latents outside the ledger.** A developer who runs the generator on any other latent, and records nothing, gets
  *not made*. The ledger shows what was recorded, not that everything was recorded. Only control of the place where the
  generator runs prevents this: a service that takes latents from `draw` alone, or attested hardware.
- **A second copy of the weights.** Others who have the weights make images that no ledger knows. *Not made* clears the
  ledger's owner, not the generator.
- **Post-processing.** A sample changed by more than the threshold (cropped, turned, repainted) is not found. A
  threshold wide enough for all such changes would find neighbours of the samples that nobody made.
- **A leaked secret.** Its holder can make samples of the ledger before their owner does, and sign heads. Opened
  epochs and records are leaked in the same way, within their limits: others can then make their samples. So open under
  a head that precedes the accusation, and open to as few people as need it.
- **A second ledger.** A developer may keep two and show the one that suits. So the public key and the first head are to
  be published together with the generator. Two ledgers under one key are a `ForkError` to whoever sees heads of both.
- **Withheld heads.** Records after the last head before the accusation are not covered: publish often.
- **Time.** Times in records and heads are those of the developer's clock. Only the place of publication dates a head.

Evidence tells which latents were drawn, and so every sample under the head, to whoever gets it. Open images that were
made in confidence to a trusted third party only.
"""

from bayesdf.ledger.errors import (
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
from bayesdf.ledger.evidence import Evidence, gather, load_evidence
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
from bayesdf.ledger.keys import load_secret, new_secret
from bayesdf.ledger.log import create, draw, recall, repair
from bayesdf.ledger.records import Log
from bayesdf.ledger.verification import Verdict, verify, verify_all

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
