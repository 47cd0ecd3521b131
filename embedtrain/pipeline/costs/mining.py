"""What mine, score, select and filter stages cost."""

from dataclasses import dataclass

from embedtrain.config.check import find, sources_of
from embedtrain.config.costs import PROCESS_BYTES, Range, encoding_bytes, forward_flops
from embedtrain.config.mining import Mine, Score, Select
from embedtrain.config.retrievers import EncoderJudge, EndpointJudge, Pinned, Retriever, Teacher
from embedtrain.config.schema import Run
from embedtrain.config.stages import Filter
from embedtrain.pipeline.costs.models import Model, model_of
from embedtrain.pipeline.costs.setting import Cost, Setting
from embedtrain.pipeline.costs.texts import Pile, Texts, count_texts

ROW_SECONDS = 1e-4
"""To read a row, apply rules to it and write it."""
WORD_SECONDS = 1e-4
"""BM25, a text indexed or asked."""
CANDIDATE_BYTES = 16
"""Of a mined candidate: its document, rank and score."""
PLAIN_BYTES = 0.3e9
"""A process without torch."""


@dataclass(frozen=True, slots=True)
class Mined:
    """What is mined of one source: queries, the documents that are searched, and their tokens."""

    queries: float
    documents: float
    texts: Texts

    @property
    def tokens(self) -> float:
        """Of all queries and documents, each encoded once."""
        return self.queries * self.texts.query + self.documents * self.texts.document

    @property
    def length(self) -> float:
        """Tokens of a text, on average."""
        return self.tokens / max(1.0, self.queries + self.documents)


def mined_of(setting: Setting, stage: Mine) -> list[Mined] | None:
    """What a stage mines, by source; None where the rows or the corpus cannot be read."""
    given = Pile(0, 0)
    if stage.corpus:
        found = count_texts(stage.corpus, setting.run.text.max_document_tokens)
        if found is None:
            return None
        given = found
    mined = []
    for name in sources_of(setting.run, stage):
        texts, rows = setting.texts(stage, name), setting.num_rows(name)
        if texts is None or rows is None:
            return None
        queries = min(rows, stage.max_rows or rows)
        a_row = texts.positives + texts.negatives + setting.run.sources[name].symmetric
        found_in = (rows * a_row if stage.own_texts else 0.0) + given.count
        own = queries * a_row
        mined.append(Mined(queries, max(min(found_in, stage.corpus_size or found_in), own), texts))
    return mined


def judge_model(run: Run, judge: Retriever | Teacher) -> Model | None:
    """The model that retrieves or scores; None where it is none that computes here."""
    match judge:
        case EncoderJudge():
            return model_of(run, judge.from_)
        case Pinned():
            return model_of(run, judge.model)
    return None


def mine_cost(setting: Setting, stage: Mine) -> Cost:
    """Each encoder encodes queries and documents once; exact search is 2 Q C D; BM25 reads each text."""
    judges = [(judge, judge_model(setting.run, judge)) for judge in stage.judges]
    mined = mined_of(setting, stage)
    what = ", ".join(judge.column for judge, _ in judges)
    if mined is None:
        return Cost(what, tokens=None)
    texts = sum(one.queries + one.documents for one in mined)
    tokens, seconds, disk = 0.0, 0.0, 0.0
    memory, is_known = PROCESS_BYTES[setting.machine.device], True
    for judge, model in judges:
        if isinstance(judge, EndpointJudge):
            is_known = False
        elif judge.kind == "bm25":
            seconds += texts * WORD_SECONDS
        elif model is not None:
            tokens += sum(one.tokens for one in mined)
            found = encode_seconds(setting, model, mined, per_pair=None)
            is_known = is_known and found is not None
            seconds += found or 0.0
            if model.shape is not None:
                batch = encode_tokens(setting)
                most = encoding_bytes(model.shape, model.precision, batch)
                memory = max(memory, PROCESS_BYTES[setting.machine.device] + most)
            bytes_each = 4 if stage.vector_precision == "float32" else 2
            disk += texts * (model.dims or 0) * bytes_each
    queries = sum(one.queries for one in mined)
    disk += queries * stage.top_k * len(judges) * CANDIDATE_BYTES
    disk += sum(4 * one.documents * one.texts.document for one in mined)
    total = seconds + setting.start_seconds(stage) if is_known else None
    all_shapes = all(model is None or model.shape for _, model in judges)
    return Cost(
        what, tokens, total, Range(memory, memory) if all_shapes else None, disk if all_shapes else None
    )


def encode_tokens(setting: Setting) -> float:
    """Tokens of a batch when encoding: on a CPU at most 512 a thread."""
    limit = setting.machine.encode_tokens
    return min(limit, 512 * setting.threads) if setting.machine.device == "cpu" else limit


def encode_seconds(
    setting: Setting, model: Model, mined: list[Mined], per_pair: float | None
) -> float | None:
    """To encode and search everything; with `per_pair`, to read so many pairs of texts a query."""
    if model.shape is None:
        return None
    rate = setting.device(model.shape, model.precision).rate
    if rate is None:
        return None
    flops = 0.0
    for one in mined:
        if per_pair is None:
            flops += one.tokens * forward_flops(model.shape, one.length)
            flops += 2 * one.queries * one.documents * (model.dims or 0)
        else:
            pair = one.texts.query + one.texts.document
            flops += one.queries * per_pair * pair * forward_flops(model.shape, pair)
    return flops / rate / setting.machine.num_processes


def score_cost(setting: Setting, stage: Score) -> Cost:
    """Rerankers and language models read each pair; encoders read each text that mining has not encoded."""
    run = setting.run
    mine = find(run, stage.candidates, Mine)
    mined = mined_of(setting, mine) if mine else None
    what = ", ".join(teacher.column for teacher in stage.teachers)
    if mine is None or mined is None:
        return Cost(what, tokens=None)
    pairs = stage.first_candidates or mine.top_k
    encoded = {judge.from_ for judge in mine.judges if isinstance(judge, EncoderJudge)}
    encoded |= {judge.model for judge in mine.judges if isinstance(judge, Pinned)}
    tokens, seconds, known, memory = 0.0, 0.0, True, PROCESS_BYTES[setting.machine.device]
    positives = sum(one.queries * one.texts.positives for one in mined) / max(
        1, sum(o.queries for o in mined)
    )
    for teacher in stage.teachers:
        model = judge_model(run, teacher)
        if isinstance(teacher, EndpointJudge):
            known = False
        if model is None or model.name in encoded:
            continue
        reads_pairs = teacher.kind in ("cross_encoder", "likelihood", "yes_no")
        per_pair = pairs + positives if reads_pairs else None
        tokens += sum(
            one.queries * per_pair * (one.texts.query + one.texts.document) if per_pair else one.tokens
            for one in mined
        )
        found = encode_seconds(setting, model, mined, per_pair)
        known, seconds = known and found is not None, seconds + (found or 0.0)
        if model.shape is not None:
            most = encoding_bytes(model.shape, model.precision, encode_tokens(setting))
            memory = max(memory, PROCESS_BYTES[setting.machine.device] + most)
    shapes = [judge_model(run, teacher) for teacher in stage.teachers]
    total = seconds + setting.start_seconds(stage) if known else None
    disk = sum(one.queries for one in mined) * pairs * 4.0 * (len(stage.teachers) + len(stage.ensembles))
    all_shapes = all(model is None or model.shape for model in shapes)
    return Cost(what, tokens, total, Range(memory, memory) if all_shapes else None, disk)


def select_cost(setting: Setting, stage: Select) -> Cost:
    """Rules over candidates: no model."""
    mine = find(setting.run, stage.candidates, Mine)
    mined = mined_of(setting, mine) if mine else None
    what = f"{stage.num_negatives} negatives a row"
    if mined is None or mine is None:
        return Cost(what, memory=Range(PLAIN_BYTES, PLAIN_BYTES))
    queries = sum(one.queries for one in mined)
    texts = 4 * sum(one.queries * one.texts.of_row(stage.num_negatives) for one in mined)
    seconds = queries * (1 + mine.top_k / 10) * ROW_SECONDS + setting.start_seconds(stage)
    return Cost(what, 0.0, seconds, Range(PLAIN_BYTES, PLAIN_BYTES), texts)


def filter_cost(setting: Setting, stage: Filter) -> Cost:
    """Rows read and written: no model."""
    names = sources_of(setting.run, stage)
    found = [(setting.num_rows(name), setting.texts(stage, name)) for name in names]
    if any(rows is None or texts is None for rows, texts in found):
        return Cost("rows", memory=Range(PLAIN_BYTES, PLAIN_BYTES))
    rows = sum(count for count, _ in found if count)
    written = 4 * sum(count * texts.of_row(texts.negatives) for count, texts in found if count and texts)
    seconds = rows * ROW_SECONDS * (2 if stage.near_duplicates else 1) + setting.start_seconds(stage)
    return Cost(f"{rows:,} rows", 0.0, seconds, Range(PLAIN_BYTES, PLAIN_BYTES), written)
