"""What can be wrong with a ledger, each with its own name."""

from bayesdf.errors import BayesdfError


class LedgerError(BayesdfError):
    """A ledger, a head or evidence that cannot be used: what is wrong, at which record, and what to do."""


class TamperedError(LedgerError):
    """A record, a head or an opened key does not fit the digest, chain or commitment that covers it."""


class TruncatedError(LedgerError):
    """Records are missing that the published head, or a later record, says were there."""


class ReorderedError(LedgerError):
    """All records are there, in another order than they were written."""


class ReplayedError(LedgerError):
    """A record stands twice, or an old head is shown as the current one."""


class ForkError(LedgerError):
    """Two histories, each sound, that cannot both be the developer's one ledger."""


class SignatureError(LedgerError):
    """A head that the holder of the public key did not sign."""


class TornError(LedgerError):
    """The last line of the file is unfinished: its writer was stopped. `repair` mends it."""


class LockedError(LedgerError):
    """Another writer holds the ledger."""


class IncompleteError(LedgerError):
    """Evidence in which no opened sample is the accused image, and which does not open all as it should."""
