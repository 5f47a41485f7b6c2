"""The lab's errors: one line an operator can act on."""


class LabError(Exception):
    """Something the lab cannot do; ``str()`` is one line, ``hint`` says what to try."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def line(self) -> str:
        """Return the message and its hint as the command line prints them."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class CommandFailed(LabError):
    """A program that the lab ran did not exit with 0, or not in time."""


class WaitTimeout(LabError):
    """A condition did not come true within its deadline."""
