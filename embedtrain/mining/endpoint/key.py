"""The key of an endpoint: read from the environment, sent, and never shown."""

import os

from embedtrain.config.errors import UserError
from embedtrain.config.retrievers import EndpointJudge
from embedtrain.mining.endpoint.protocols import title

HIDDEN = "[key]"


class Key:
    """A secret, or none. Only `headers` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str | None) -> None:
        """Keep the secret."""
        self._value = value

    def __repr__(self) -> str:
        return "Key(hidden)"

    def headers(self) -> dict[str, str]:
        """The header that carries it."""
        return {} if self._value is None else {"Authorization": f"Bearer {self._value}"}

    def hide(self, text: str) -> str:
        """The text without the key, should a server say it back."""
        return text if self._value is None else text.replace(self._value, HIDDEN)


def read_key(judge: EndpointJudge) -> Key:
    """The key in the judge's environment variable; UserError, without its value, where it is none."""
    if judge.key_variable is None:
        return Key(None)
    value = os.environ.get(judge.key_variable, "").strip()
    if not value:
        raise UserError(
            f"{title(judge)}: the environment variable {judge.key_variable} is not set; it must hold the key"
        )
    if not value.isascii() or not value.isprintable() or " " in value:
        raise UserError(
            f"{title(judge)}: the environment variable {judge.key_variable} holds no key: it has spaces or "
            "characters that no key has"
        )
    return Key(value)
