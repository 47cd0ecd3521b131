"""What a run will see of each source, told from its sizes alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from embedtrain.config.sources import Mixture, Source
from embedtrain.config.stages import Train
from embedtrain.mixture.schedule import source_shares
from embedtrain.mixture.streams import Stream, make_streams


@dataclass(frozen=True, slots=True)
class Share:
    """What a run sees of a source of `size` rows: `drawn` rows, `fraction` of all that it draws.

    Exact up to rows that are swapped within their batch, which stay of the same source.
    """

    size: int
    drawn: int
    fraction: float

    @property
    def passes(self) -> float:
        """How often the run sees each row, on average."""
        return self.drawn / self.size


def plan_shares(
    sizes: Mapping[str, int],
    weights: Mapping[str, float],
    mixture: Mixture,
    batch_sizes: Mapping[str, int],
    steps: int,
) -> dict[str, Share]:
    """The shares of a plan, without the keys of its rows."""
    shares = source_shares(sizes, weights, mixture.size_exponent)
    return stream_shares(make_streams(mixture, shares, sizes, batch_sizes, steps, seed=0), sizes)


def stream_shares(streams: Sequence[Stream], sizes: Mapping[str, int]) -> dict[str, Share]:
    """What the streams draw of each source."""
    drawn = sum(stream.schedule.counts_S * stream.widths_S for stream in streams).tolist()
    return {
        name: Share(size, rows, rows / sum(drawn))
        for (name, size), rows in zip(sizes.items(), drawn, strict=True)
    }


def num_steps(stage: Train, sizes: Mapping[str, int]) -> int:
    """The stage's steps, or as many as its epochs over all rows take, the last one begun counted."""
    if stage.steps is not None:
        return stage.steps
    return ceil(Fraction(str(stage.epochs)) * sum(sizes.values()) / stage.batch_size)


def batch_sizes(stage: Train, sources: Mapping[str, Source]) -> dict[str, int]:
    """Rows of a batch by source; a source's own size holds where a batch has one source."""
    if stage.mixture.batches.kind != "one_source":
        return dict.fromkeys(sources, stage.batch_size)
    return {name: source.batch_size or stage.batch_size for name, source in sources.items()}
