"""What can be wrong with a ledger? One error class for each."""

from bayesdf.errors import BayesdfError


class LedgerError(BayesdfError):
    """A ledger, a head or evidence cannot be used. The message says what is wrong, at which record, and what to do."""


class TamperedError(LedgerError):
    """A record, a head or an opened key does not fit the digest, chain or commitment that covers it."""


class TruncatedError(LedgerError):
    """Records are missing, according to the published head or a later record."""


class ReorderedError(LedgerError):
    """All records are present, but not in the order in which they were written."""


class ReplayedError(LedgerError):
    """A record appears twice, or an old head is shown as the current one."""


class ForkError(LedgerError):
    """Two histories, each sound, that cannot both be the developer's one ledger."""


class SignatureError(LedgerError):
    """The owner of the public key did not sign the head."""


class TornError(LedgerError):
    """The last line of the file is unfinished: its writer was stopped. `repair` mends it."""


class LockedError(LedgerError):
    """Another writer holds the ledger."""


class IncompleteError(LedgerError):
    """No opened sample is the accused image, and the evidence does not open everything that it must."""
