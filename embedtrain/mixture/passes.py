"""Pass after pass over the rows of one source, each in an order of its own, from any place on."""

import numpy as np

from embedtrain.data.rows import text_key

NEWEST = 2
"""Orders kept: a batch may stand across the end of a pass."""


class Passes:
    """The endless passes over a source's rows; the order of pass p depends on seed, name, stream and p."""

    def __init__(self, name: str, num_rows: int, seed: int, stream: tuple[int, ...]) -> None:
        """Draw nothing yet."""
        self.num_rows = num_rows
        self.key = (seed, text_key(name) % 2**64)
        self.stream = stream
        self.orders: dict[int, np.ndarray] = {}

    def order(self, number: int) -> np.ndarray:
        """The rows in the order of pass `number`; the newest orders are kept."""
        order = self.orders.get(number)
        if order is None:
            generator = np.random.default_rng([*self.key, number, *self.stream])
            order = generator.permutation(self.num_rows)
            self.orders = dict([*self.orders.items(), (number, order)][-NEWEST:])
        return order

    def rows(self, places: np.ndarray) -> np.ndarray:
        """The rows at ascending places of all passes end to end."""
        return self.take(*np.divmod(places, self.num_rows))

    def batches(self, numbers: np.ndarray, size: int) -> np.ndarray:
        """The rows (N, size) of whole batches, ascending; what fills no batch is left out of its pass."""
        pass_N, batch_N = np.divmod(numbers, self.num_rows // size)
        return self.take(pass_N, batch_N[:, None] * size + np.arange(size))

    def take(self, pass_N: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The rows at places (N, ...) within ascending passes."""
        numbers, starts = np.unique(pass_N, return_index=True)
        parts = np.split(places, starts[1:])
        return np.concatenate([self.order(n)[part] for n, part in zip(numbers.tolist(), parts, strict=True)])
