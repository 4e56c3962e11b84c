"""The error of a call that is over a limit of the server, whatever is waiting: sent again, it is refused again.

It doesn't know the limits.
"""

from __future__ import annotations

from layerwire.errors import InvalidArgumentError


class OverLimitError(InvalidArgumentError):
    """A call or message is larger than any may be.

    Args:
        reason: what it has too much of, as in metrics.REJECTIONS.
        subject: the operator or method, "max_pool2d" or "stream".
        field: the argument that is to blame.
        rule: what is wrong with it.
    """

    def __init__(self, reason: str, subject: str, field: str, rule: str) -> None:
        super().__init__(f"{subject}: {field} {rule}", operator=subject, field=field)
        self.reason = reason
