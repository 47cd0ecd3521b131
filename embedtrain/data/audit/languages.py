"""Which language a text is in (py3langid: offline, BSD; extra `audit`)."""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from embedtrain.config.errors import UserError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNSURE = "unsure"
LOOKED_AT = 200  # characters
SURE = 0.5  # on Wikipedia in English, French and Spanish, 98 % of the 3-word texts that pass are right


def detect_language(text: str) -> str:
    """The ISO 639-1 code of its beginning, or `unsure`: most texts of one or two words are."""
    language, confidence = identifier().classify(text[:LOOKED_AT])
    return str(language) if confidence >= SURE else UNSURE


def count_languages(texts: Iterable[str]) -> dict[str, int]:
    """Number of texts by language, the commonest first."""
    return dict(Counter(map(detect_language, texts)).most_common())


def known_languages() -> list[str]:
    """All codes that can be detected."""
    return sorted(identifier().labels)


@cache
def identifier() -> "LanguageIdentifier":
    """The detector, read once (97 languages, 5 MB)."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise UserError(
            "languages are told by py3langid, which is not installed: pip install 'embedtrain[audit]'"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
