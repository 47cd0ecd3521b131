"""An endpoint that gives vectors, as an encoder for the vector store."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from embedtrain.artifacts import hash_json
from embedtrain.config.errors import UserError, shorten
from embedtrain.config.retrievers import EndpointJudge
from embedtrain.mining.endpoint.client import Client
from embedtrain.mining.endpoint.protocols import Batch, title
from embedtrain.vectors import Side


class EndpointEncoder:
    """Vectors of texts. The server cuts long texts, by its model's own limit."""

    def __init__(self, judge: EndpointJudge, client: Client) -> None:
        """Ask `client` for what `judge` describes."""
        self.judge, self.client = judge, client
        self.prompts: dict[Side, str] = {"query": judge.query_prompt, "document": judge.document_prompt}
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """Dims of a vector; asks for one where none has come yet."""
        if self._dim is None:
            self._dim = self.vectors([Batch(["dimension"])]).shape[1]
        return self._dim

    @cached_property
    def weights(self) -> str:
        """Hash of what is known of the model: server, name, and what the server says of it, if it does."""
        judge = self.judge
        return hash_json([judge.url.rstrip("/"), judge.protocol, judge.model, self.client.served()])

    @property
    def template(self) -> str:
        """Hash of the prompts."""
        return hash_json([self.judge.query_prompt, self.judge.document_prompt])

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        *,
        instruction: str,
        max_tokens: int | None,
        tokens_per_batch: int,
        normalize: bool,
    ) -> np.ndarray:
        """float32 (texts, dim), in the order given.

        The judge's own prompt stands before each text; the rows' instruction and the limits in tokens are
        not read: the server has its own.
        """
        if not texts:
            return np.empty((0, self.dim), np.float32)
        size, prompt = self.judge.texts_per_request, self.prompts[side]
        batches = [
            Batch([prompt + text for text in texts[start : start + size]])
            for start in range(0, len(texts), size)
        ]
        vectors = self.vectors(batches)
        return self.normalized(vectors, texts) if normalize else vectors

    def vectors(self, batches: Sequence[Batch]) -> np.ndarray:
        """float32 vectors of all texts; UserError where they do not have the same dims as all before."""
        parts = self.client.ask_all(batches)
        dims = {part.shape[1] for part in parts} | ({self._dim} if self._dim else set())
        if len(dims) > 1:
            raise UserError(f"{title(self.judge)}: gives vectors of different dims: {sorted(dims)}")
        self._dim = dims.pop()
        return np.concatenate(parts)

    def normalized(self, vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, by float64."""
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if not lengths.all():
            text = texts[int(np.argmin(lengths))]
            raise UserError(f"{title(self.judge)}: gives a vector of zeros for {shorten(text)}")
        return (vectors / lengths[:, None]).astype(np.float32)


def open_encoder(judge: EndpointJudge, *, world: int = 1) -> EndpointEncoder:
    """The judge's encoder, in one of `world` processes that share its limits; UserError where a key lacks."""
    return EndpointEncoder(judge, Client(judge, world=world))
