"""What went wrong, where, and what to do about it."""


class BayesdfError(ValueError):
    """A mistake the caller can mend: one line that says what is wrong, where, and what to do.

    The command lines print the message and leave with exit status 2.
    """


class BayesdfWarning(UserWarning):
    """Something that may spoil a result, said before it does."""


class ConvergenceWarning(BayesdfWarning):
    """A fit has ended, but is not shown to be the posterior that was asked for."""
