"""The prompts of an exported folder: by name, what stands before a text, and how training writes the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tokenizers import Tokenizer

from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat
from embedtrain.model.encoder import Side
from embedtrain.templates import prefix, suffix, validate_template
from embedtrain.text import Formatted, SourceText, format_document, format_query, source_text


@dataclass(frozen=True, slots=True)
class Prompt:
    """One way to write a text: a source's, on one side, with fixed examples or none."""

    how: SourceText
    side: Side = "query"
    examples: str = ""

    @property
    def template(self) -> str:
        """The template that is filled."""
        is_query = self.side == "query" or self.how.symmetric
        return self.how.query if is_query else self.how.document

    @property
    def before(self) -> str:
        """What stands before the text: the prompt of sentence-transformers."""
        return prefix(self.template, self.how.instruction, self.examples)

    @property
    def after(self) -> str:
        """What stands after the text; no sentence-transformers prompt can hold it."""
        return suffix(self.template, self.how.instruction)

    def like(self, other: "Prompt") -> bool:
        """Whether both put the same around a text."""
        return (self.before, self.after) == (other.before, other.after)

    def format(self, text: str) -> Formatted:
        """The text as training writes it."""
        if self.side == "document":
            return format_document(self.how, text, 0)
        return format_query(self.how, text, examples=self.examples)


@dataclass(frozen=True, slots=True)
class SourcePrompts:
    """What an export is to know of a source: its writing, its mteb tasks, and examples by their number.

    `by_default` puts the examples into the queries' prompts of the source and of its tasks too.
    """

    text: SourceText
    tasks: Sequence[str] = ()
    examples: Mapping[int, str] = field(default_factory=dict)
    by_default: bool = False


Sources = Mapping[str, SourcePrompts]


def named_prompts(fmt: TextFormat, sources: Sources) -> dict[str, Prompt]:
    """All prompts of a run by name: both sides', then each source's, its tasks' and those with examples.

    A source's `name` and `name_document` are there where they differ from the plain sides' prompts. Of a task
    there is `task`, and where both sides differ also `task-query` and `task-document`, the keys that mteb
    looks up. Raises UserError where two ways of writing would have one name.
    """
    plain = source_text(fmt)
    prompts = {"query": Prompt(plain), "document": Prompt(plain, "document")}
    for name, source in sources.items():
        for key, prompt in source_prompts(name, source, prompts).items():
            if not prompts.setdefault(key, prompt).like(prompt):
                raise UserError(
                    f"source '{name}': its prompt '{key}' is another source's or side's already, and "
                    f"differs: {prompts[key].before!r} and {prompt.before!r}; rename one of them"
                )
    return prompts


def source_prompts(name: str, source: SourcePrompts, plain: Mapping[str, Prompt]) -> dict[str, Prompt]:
    """The prompts of one source by name. A share of documents written as queries has the query's."""
    how = replace(source.text, instructed_documents_fraction=0.0)
    bare, document = Prompt(how), Prompt(how, "document")
    shots = {f"{name}_{number}_shot": Prompt(how, "query", text) for number, text in source.examples.items()}
    query = bare
    if source.by_default and shots:
        *_, query = shots.values()
        shots[f"{name}_0_shot"] = bare
    one_way = how.symmetric and query is bare
    named = {name: query} | ({} if one_way else {f"{name}_document": document})
    named = {key: prompt for key, prompt in named.items() if not prompt.like(plain[prompt.side])}
    for task in source.tasks:
        both = {} if one_way else {f"{task}-query": query, f"{task}-document": document}
        named |= {task: query} | both
    return named | shots


def check_prompts(prompts: Mapping[str, Prompt], pool_instruction: bool) -> None:
    """Raise UserError where a prompt's last token would reach into the text."""
    for prompt in prompts.values():
        kind = "few_shot_query" if prompt.examples else "shared_query"
        validate_template(
            prompt.template, kind, instruction=prompt.how.instruction, pool_instruction=pool_instruction
        )


def check_room(prompts: Mapping[str, Prompt], tokenizer: Tokenizer, max_tokens: int) -> None:
    """Raise UserError where a prompt fills the folder's limit, so that no text would be read."""
    for name, prompt in prompts.items():
        num_tokens = len(tokenizer.encode(prompt.before).ids)
        if num_tokens >= max_tokens:
            raise UserError(
                f"prompt '{name}' holds {num_tokens} tokens, and the exported folder cuts texts at "
                f"{max_tokens}, prompts included; raise the limit or shorten the prompt"
            )


def shared_suffix(prompts: Mapping[str, Prompt], tokenizer: Tokenizer) -> list[str]:
    """The special tokens that end every text, whichever its prompt; a folder can hold no other suffix."""
    first, *others = prompts
    differing = [name for name in others if prompts[name].after != prompts[first].after]
    after = prompts[first].after
    tokens = special_tokens(tokenizer, after)
    if differing or (after and not tokens):
        name = (differing or others)[0]
        raise UserError(
            f"text: a sentence-transformers folder holds prefixes only, and the templates end in {after!r} "
            f"({first}) and {prompts[name].after!r} ({name}); give a fixed prefix, or end all of them in the "
            "same special token (encoder.append_eos does that)"
        )
    if tokens and tokenizer.encode("a").special_tokens_mask[-1]:
        raise UserError(
            f"text: the templates end in {after!r}, and the tokenizer or encoder.append_eos puts an end "
            "token after it; keep one of them"
        )
    return tokens


def special_tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    """The special tokens that `text` consists of, or none where it holds anything else."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    tokens = tokenizer.encode(text, add_special_tokens=False).tokens
    return tokens if "".join(tokens) == text and special.issuperset(tokens) else []


def without_suffix(prompt: Prompt) -> Prompt:
    """The prompt, ending in its text."""
    how = replace(prompt.how, query=bare(prompt.how.query), document=bare(prompt.how.document))
    return replace(prompt, how=how)


def bare(template: str) -> str:
    """The template, ending in its text."""
    return template.partition("{text}")[0] + "{text}"
