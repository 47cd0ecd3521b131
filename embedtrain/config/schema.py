"""What a run is: one frozen value read from one YAML file."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from embedtrain.config.sources import Source
from embedtrain.config.stages import AnyStage
from embedtrain.config.types import RUN_NAME, SHA256, AtLeastOne, Bool, Count, Positive, Str, Strict


class Base(Strict):
    """The model the run starts from."""

    model: Str = Field(
        description="hub id, local folder, GGUF file, or `pip:name==version` (weights in a package)"
    )
    revision: Str | None = Field(None, description="hub revision; pin it")
    sha256: Annotated[Str, Field(pattern=SHA256)] | None = Field(
        None, description="expected SHA-256 of the package file or GGUF file"
    )
    keep_first_layers: AtLeastOne | None = Field(None, description="cut the backbone to its first k layers")
    trust_remote_code: Bool = Field(False, description="run code shipped with the model")
    load: Literal["nf4"] | None = Field(
        None,
        description="nf4: train stages hold the base in 4 bits below their adapters (QLoRA), by the extra "
        "`qlora` on an NVIDIA GPU; later stages put the adapters on the base in full precision",
    )

    @model_validator(mode="after")
    def _pinned_by(self) -> "Base":
        is_file = self.model.startswith("pip:") or self.model.lower().endswith(".gguf")
        if self.revision is not None and is_file:
            raise ValueError("revision is for hub ids; a package or GGUF file is pinned by sha256")
        if self.sha256 is not None and not is_file:
            raise ValueError("sha256 is for a package or a GGUF file; a hub id is pinned by revision")
        return self


class EncoderConfig(Strict):
    """How token states become one vector."""

    attention: Literal["bidirectional", "causal"] = Field(
        "bidirectional",
        description="whether a token sees those after it; proved at every load, layer by layer",
    )
    pooling: Literal["mean", "weighted_mean", "last_token", "cls"] = Field(
        "mean", description="which token states become the vector; weighted_mean weighs later tokens more"
    )
    pool_instruction: Bool = Field(
        True, description="instruction tokens count in the pool (servers other than ST need true)"
    )
    attention_kernel: Literal["packed", "sdpa", "eager"] = Field(
        "packed",
        description="packed: texts end to end, without padding; sdpa, eager: transformers' own, with padding",
    )
    append_eos: Bool = Field(False, description="add the end token to every text")

    @model_validator(mode="after")
    def _first_token_counts(self) -> "EncoderConfig":
        if self.pooling == "cls" and not self.pool_instruction:
            raise ValueError(
                "pooling is 'cls', the first token's state, and pool_instruction is false: with a prompt "
                "they contradict each other; set pool_instruction to true, or pooling to 'mean'"
            )
        return self


class TextFormat(Strict):
    """Exact strings the model sees: `{text}` once, and `{instruction}` where there is one."""

    query: Str = Field("{text}", description="template of a query")
    document: Str = Field("{text}", description="template of a document")
    max_query_tokens: AtLeastOne = Field(64, description="a query is cut to so many tokens, all included")
    max_document_tokens: AtLeastOne = Field(
        256, description="a document is cut to so many tokens, all included"
    )


SourceName = Annotated[Str, Field(pattern=RUN_NAME)]


class Run(Strict):
    """A run: where it starts, what it reads, and its stages in order."""

    name: Annotated[Str, Field(pattern=RUN_NAME)] = Field(description="folder below `folder`")
    folder: Str = Field("runs", description="where run folders are made")
    seed: Count = Field(7, description="decides every draw: batches, negatives, adapters, dropout")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="precision of the forward and backward pass"
    )
    base: Base = Field(description="the model to start from")
    encoder: EncoderConfig = Field(
        default_factory=EncoderConfig, description="how token states become one vector"
    )
    text: TextFormat = Field(default_factory=TextFormat, description="the exact strings the model sees")
    sources: dict[SourceName, Source] = Field(
        default_factory=dict, description="rows to train on and to mine, by name"
    )
    stages: tuple[AnyStage, ...] = Field(min_length=1, description="what is done, in order")


class Machine(Strict):
    """How to run, never what: nothing here may change a result."""

    device: Literal["cpu", "cuda", "mps"] = Field("cpu", description="where tensors live")
    num_processes: AtLeastOne = Field(1, description="processes that share a stage, on all machines together")
    num_nodes: AtLeastOne = Field(
        1, description="machines that share the processes; each starts the same command"
    )
    timeout_seconds: Positive = Field(
        1800.0, description="a process that lets the others wait for longer is given up, and the stage ends"
    )
    threads: AtLeastOne | None = Field(None, description="torch threads; absent means torch's choice")
    chunk_tokens: AtLeastOne = Field(1024, description="tokens in one chunk of the gradient cache")
    keep_tokens: Literal["auto"] | Count = Field(
        "auto",
        description="tokens whose graphs a process keeps in a step, the rest is encoded twice; auto: as many "
        "as memory holds, measured before the first step",
    )
    encode_tokens: AtLeastOne = Field(
        16384, description="tokens in one batch when encoding; on a CPU at most 512 a thread"
    )
    activation_checkpointing: Bool = Field(
        False, description="keep no activations and compute them again: less memory, more time"
    )
    sharding: Literal["none", "full"] = Field(
        "none",
        description="full: the processes of a train stage share out weights, gradients and optimizer state "
        "by FSDP2, where they do not fit on each; other stages hold the encoder whole",
    )
    compile: Bool = Field(
        False, description="compile the layers while training, by torch.compile; the first step waits for it"
    )
    accelerate_config: Str | None = Field(None, description="file passed to accelerate launch, cuda only")
    gpu: Literal["h200", "h100", "a100", "a100_40gb", "l4", "rtx_4090"] | None = Field(
        None,
        description="which GPU, cuda only: for what `embedtrain plan` estimates and the curve's `mfu`",
    )
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        (),
        description="where curves are shown besides curve.jsonl; each needs the extra of its name",
    )
    tracker_project: Str = Field("embedtrain", description="project of the curves in wandb and trackio")

    @model_validator(mode="after")
    def _fits_device(self) -> "Machine":
        if self.accelerate_config is not None and self.device != "cuda":
            raise ValueError(f"accelerate_config is only read with device 'cuda', and it is '{self.device}'")
        if self.gpu is not None and self.device != "cuda":
            raise ValueError(f"gpu is only read with device 'cuda', and it is '{self.device}'")
        if self.device == "mps" and self.num_processes > 1:
            raise ValueError(f"num_processes is {self.num_processes}, and device 'mps' has one")
        if self.sharding == "full":
            self._shards()
        if self.num_processes % self.num_nodes:
            raise ValueError(
                f"num_processes is {self.num_processes}, of all nodes together; expected a multiple of "
                f"num_nodes, {self.num_nodes}"
            )
        return self

    def _shards(self) -> None:
        """Refuse what does not go with sharded weights."""
        if self.num_processes == 1:
            raise ValueError("sharding is 'full', and num_processes is 1: there is nobody to share with")
        if self.keep_tokens == "auto":
            raise ValueError(
                "sharding is 'full', and keep_tokens is 'auto', which each process measures for itself; "
                "write a number, 0 takes the least memory"
            )
        if self.compile:
            raise ValueError("sharding is 'full', and compile is true: sharded layers are not compiled")
