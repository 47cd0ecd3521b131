"""What the base install lacks."""

from importlib.util import find_spec

from embedtrain.config.errors import UserError


def require_mteb(what: str) -> None:
    """Raise UserError where mteb, which `what` needs, is not installed."""
    if find_spec("mteb") is None:
        raise UserError(f"{what}: mteb is not installed; pip install 'embedtrain[eval]'")
