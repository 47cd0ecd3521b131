"""Faults of a user's data, collected while a reader goes on and told together."""

from embedtrain.config.errors import UserError

LIMIT = 20


class Problems:
    """Faults, each with its place: the first `limit` are kept, all are counted."""

    def __init__(self, limit: int = LIMIT) -> None:
        """Start without any."""
        self.limit, self.count = limit, 0
        self.messages: list[str] = []

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, place: str, text: str) -> None:
        """A fault: `place` is a file and, where it has one, the line, row or column."""
        self.tell(f"{place}: {text}")

    def tell(self, message: str) -> None:
        """A fault whose message is whole."""
        self.count += 1
        if len(self.messages) < self.limit:
            self.messages.append(message)

    def require(self) -> None:
        """Raise one UserError with all faults, if there are any: those kept, and how many more."""
        if self.count:
            more = self.count - len(self.messages)
            raise UserError("\n".join([*self.messages, *([f"… and {more:,} more"] if more else [])]))
