"""The one schema of every YAML file under ``configs/``.

A section is frozen, refuses unknown keys, and checks its own ranges; what two sections must agree on is
checked in ``rules.py``. Durations, sizes and counts carry their unit in the name or in the description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from unigrf_dist.config.cadence import parse_cadence
from unigrf_dist.config.task_rule import parse_rule


class Section(BaseModel):
    """Base of all sections: immutable, strict about names, documented field by field."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would read `true` as 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("must be a number, not a truth value")
        return value


class DataConfig(Section):
    """The prepared data set, and how training reads it."""

    path: Path = Field(description="Folder written by `unigrf prepare` or `unigrf synthesize`.")
    max_events: int = Field(200, ge=1, description="Events of a user that the model sees; the latest are kept.")
    shuffle_users: int = Field(
        8192, ge=1, description="Users of a shuffle buffer; the stream's memory grows with it."
    )
    partitions: int = Field(
        64,
        ge=1,
        description="Parts of the users that the ranks share; at least as many as there will ever be ranks.",
    )
    prefetch_batches: int = Field(2, ge=1, description="Batches read ahead of the step, by a thread of each rank.")


class ModelConfig(Section):
    """The transducer that both tasks share."""

    backbone: Literal["hstu", "llama"] = Field(
        "hstu", description="Sequence transducer over the interleaved item and behaviour tokens."
    )
    width: int = Field(50, ge=1, description="Width of item vectors and hidden states.")
    blocks: int = Field(2, ge=1, description="Transducer blocks.")
    heads: int = Field(1, ge=1, description="Attention heads per block.")
    head_width: int = Field(50, ge=1, le=256, description="Width of one head's queries, keys and values.")
    key_heads: int | None = Field(
        None,
        ge=1,
        description="Heads of keys and values, each shared by several query heads; as many as `heads` if left "
        "out; `llama` only.",
    )
    feedforward_width: int | None = Field(
        None, ge=1, description="Hidden width of SwiGLU, 8/3 of `width` if left out; `llama` only."
    )
    dropout: float = Field(
        0.2, ge=0.0, lt=1.0, description="Dropout probability on the token vectors and inside each block."
    )
    time_buckets: int = Field(64, ge=2, description="Logarithmic buckets of the attention's time bias.")
    position_bias: bool = Field(True, description="Learned attention bias per relative position.")
    time_bias: bool = Field(True, description="Learned attention bias per bucket of time difference.")
    behaviours_carry_items: bool = Field(
        False, description="Whether a behaviour's token also holds the vector of its item."
    )
    query_time_visible: bool = Field(
        False, description="Whether the prediction of the next item knows when it will be asked for."
    )
    item_features: list[str] = Field(
        [], description="Side features of items, by name, that enter their tokens; `unigrf inspect` lists them."
    )
    user_features: list[str] = Field(
        [], description="Side features of users that enter all of a user's item tokens."
    )

    @field_validator("item_features", "user_features")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{repeated[0]} is named twice")
        return names


class IdsConfig(Section):
    """Which items have a row of the item table."""

    kind: Literal["static", "dynamic"] = Field(
        "static",
        description="`static`: every item of the data set has a row. `dynamic`: there are `capacity` rows, which "
        "items are given and lose again.",
    )
    capacity: int | None = Field(None, ge=1, description="Rows of the item table (`dynamic`).")
    admit_after: int = Field(
        0,
        ge=0,
        description="Training events of an item before it is given a row; 0 gives free rows to items before they "
        "are seen (`dynamic`).",
    )
    evict: Literal["lfu", "lru", "ttl"] = Field(
        "lru",
        description="Whose row a newcomer gets when none is free: that of the item with fewest events, if the "
        "newcomer has more (`lfu`), or of the one not seen for longest (`lru`); or nobody's, as rows are given "
        "back after `ttl_steps` (`ttl`).",
    )
    ttl_steps: int | None = Field(
        None, ge=1, description="Steps without an event after which an item loses its row (`evict: ttl`)."
    )


class TableConfig(Section):
    """The sharded embedding tables and their fused optimizer."""

    sharding: Literal["row_wise", "table_wise", "column_wise", "planner"] = Field(
        "row_wise", description="How TorchRec cuts the item table; `planner` lets it choose."
    )
    optimizer: Literal["adam", "rowwise_adagrad", "adagrad", "sgd"] = Field(
        "adam", description="Optimizer fused into the tables' backward."
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="Peak learning rate of the tables; follows the DeepSpeed scheduler in proportion."
    )
    betas: tuple[float, float] = Field((0.9, 0.98), description="Decay rates of Adam's two moments (`adam`).")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator of the fused optimizer.")
    init_std: float = Field(0.02, gt=0, description="Standard deviation of the initial item vectors.")
    ids: IdsConfig = IdsConfig()


class RetrievalConfig(Section):
    """The retrieval loss: a softmax of the next item against negatives."""

    targets: str | None = Field(
        None,
        description="Rule on the behaviour of the events that retrieval is to find, such as `click == 1`, in "
        "training and in evaluation; the others remain history and examples of ranking. All events if left out.",
    )
    negatives: Literal["full", "sampled", "in_batch", "mixed"] = Field(
        "full",
        description="Negatives of the softmax: the whole catalogue, samples that all ranks share, the items of "
        "the rank's batch, or the last two together.",
    )
    num_negatives: int = Field(512, ge=1, description="Shared samples per step (`sampled` and `mixed`).")
    distribution: Literal["uniform", "log_popularity"] = Field(
        "uniform", description="Distribution of the samples; `log_popularity` is Zipfian in the popularity rank."
    )
    mask_seen_negatives: bool | None = Field(
        None,
        description="Mask the negatives that the user has seen by then. If left out as evaluation ranks: masked, "
        "but not with `evaluate.seen: keep`.",
    )
    logq_correction: bool = Field(True, description="Correct the logits for unequal sampling probabilities.")
    temperature: float = Field(0.05, gt=0, description="The logits of the softmax are divided by it.")
    normalize: bool = Field(
        True, description="L2-normalise hidden states and item vectors, here and in evaluation."
    )

    @field_validator("targets")
    @classmethod
    def _targets_can_be_read(cls, rule: str | None) -> str | None:
        return None if rule is None else str(parse_rule(rule))


class RankingTask(Section):
    """A ranking task: predicts a binary label of each event, made by a rule on its behaviour."""

    rule: str = Field(description="Rule on the behaviour, such as `rating >= 4` or `click == 1`.")
    weight: float = Field(1.0, gt=0, description="Weight of the task in the sum of the ranking losses.")

    @field_validator("rule")
    @classmethod
    def _rule_can_be_read(cls, rule: str) -> str:
        return str(parse_rule(rule))


class WeighterConfig(Section):
    """The balance of the retrieval and the ranking loss."""

    strategy: Literal["gradient", "descent_rate", "uncertainty", "static"] = Field(
        "static", description="How the two task losses are balanced."
    )
    retrieval: float = Field(
        1.0,
        ge=0,
        description="Share of the retrieval loss, relative to `ranking`: `static` keeps the proportion, the other "
        "strategies start from it.",
    )
    ranking: float = Field(1.0, ge=0, description="Share of the ranking loss, relative to `retrieval`.")
    gamma: float = Field(
        0.5, ge=0, description="Exponent that favours the task that lags behind (`gradient`); 0 for none."
    )
    window_steps: int = Field(50, ge=1, description="Steps over which losses are averaged (`descent_rate`).")
    temperature: float = Field(
        2.0, gt=0, description="Temperature of the softmax over the tasks (`descent_rate`)."
    )
    smoothing: float = Field(
        0.98, ge=0, lt=1, description="Decay per step of the moving averages of norms, losses and weights."
    )
    warmup_steps: int = Field(100, ge=0, description="Steps before the weights leave their start.")
    min_weight: float = Field(0.05, ge=0, le=1, description="Smallest weight of a task; both weights sum to 2.")
    exact_every_steps: int | None = Field(
        None,
        ge=1,
        description="Steps between two measurements of both gradient norms at the last block's parameters, for "
        "comparison; never if left out.",
    )


class EnhancerConfig(Section):
    """Ranking scores candidate items of each user, which become negatives and soft positives of retrieval."""

    candidates: int = Field(8, ge=1, description="Candidate items of each user.")
    hard_negatives: int = Field(4, ge=0, description="Candidates that become negatives of their user, at most.")
    soft_positives: int = Field(2, ge=0, description="Candidates that become soft positives, at most.")
    threshold: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Probability of the first ranking task above which a candidate may be a soft positive.",
    )
    soft_weight: float = Field(0.1, ge=0, description="Weight of a soft positive; an event's is 1.")
    warmup_epochs: int = Field(5, ge=1, description="Epochs before the first candidates ride along.")
    round_epochs: int = Field(1, ge=1, description="Epochs of a round; each selects candidates for the next.")

    @model_validator(mode="after")
    def _within_the_candidates(self) -> EnhancerConfig:
        if max(self.hard_negatives, self.soft_positives) > self.candidates:
            raise ValueError(
                f"hard_negatives = {self.hard_negatives} and soft_positives = {self.soft_positives} "
                f"must not exceed candidates = {self.candidates}"
            )
        return self


class ObjectiveConfig(Section):
    """What is trained: retrieval, ranking, and how they act on each other."""

    retrieval: RetrievalConfig = RetrievalConfig()
    ranking: list[RankingTask] = Field(
        max_length=16,
        description="Each task has one logit of the ranking head; `[]` trains retrieval alone.",
    )
    weighter: WeighterConfig = WeighterConfig()
    enhancer: EnhancerConfig | None = Field(None, description="Off if left out; `{}` takes the defaults.")


class SelectionConfig(Section):
    """Validation, the choice of the best model, and early stopping."""

    metric: str = Field(
        "ndcg@10",
        description="Validation metric that picks the best model, e.g. `ndcg@10`, `auc`; of several ranking tasks "
        "`auc[click == 1]` names one, `auc` the first.",
    )
    every: str = Field(
        "1 epoch",
        description="How often to validate: `500 steps`, `30 minutes`, `2 epochs`, or the first of several, "
        "`500 steps or 30 minutes`.",
    )
    patience: int | None = Field(
        None, ge=1, description="Validations without a better value before training stops; never if left out."
    )

    @field_validator("every")
    @classmethod
    def _validations_can_be_due(cls, text: str) -> str:
        return str(parse_cadence(text))


class TrainConfig(Section):
    """The training loop, its logs and its checkpoints."""

    global_batch_users: int = Field(128, ge=1, description="Users per step, over all ranks together.")
    epochs: int = Field(ge=1, description="Passes over all users.")
    seed: int = Field(
        42, ge=0, lt=2**31, description="Seed of the initial weights, the shuffles, the negatives and dropout."
    )
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "highest",
        description="Precision of the factors of fp32 matrix products in training: fp32; TF32 on GPUs; bf16 where "
        "the chip multiplies it. Sums stay fp32.",
    )
    log_every_steps: int = Field(10, ge=1, description="Steps between two lines of the log.")
    checkpoint_every: str = Field(
        "1 epoch",
        description="How often to save: `500 steps`, `10 minutes`, `2 epochs`, or the first of several, "
        "`500 steps or 10 minutes`. The end of the run and its best validation are always saved.",
    )
    keep_checkpoints: int = Field(1, ge=1, description="Latest checkpoints kept, besides the best one.")
    timeout_seconds: int = Field(
        600, ge=10, description="Seconds that a collective may wait before the run ends with an error."
    )
    on_non_finite: Literal["stop", "skip"] = Field(
        "stop",
        description="What a loss or gradient that is not finite does: end the run, or leave that step's update "
        "out, which makes every step wait for its losses before the backward pass.",
    )
    max_skipped_steps: int = Field(
        10, ge=1, description="Steps that `on_non_finite: skip` leaves out before the run ends after all."
    )
    selection: SelectionConfig = SelectionConfig()

    @field_validator("checkpoint_every")
    @classmethod
    def _checkpoints_can_be_due(cls, text: str) -> str:
        return str(parse_cadence(text))


class EvaluateConfig(Section):
    """The evaluation of a run, and of the validations in training."""

    seen: Literal["exclude", "keep", "window"] | None = Field(
        None,
        description="Which items a user has met leave the ranking: all (`exclude`; users whose held-out item is "
        "one of them are then no users of retrieval), none (`keep`), or those in the window shown to the model "
        "(`window`). If left out, `keep` where more than 1 % of the events repeat an item, else `exclude`.",
    )
    batch_users: int = Field(128, ge=1, description="Users per batch and rank.")
    bootstrap_samples: int = Field(
        1000, ge=10, description="Resamples of the users behind each confidence interval."
    )


class Config(Section):
    """A whole run. ``deepspeed`` is handed to the engine as it is, after the checks of ``rules.py``."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    tables: TableConfig = TableConfig()
    objective: ObjectiveConfig
    train: TrainConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    kernel: Literal["auto", "triton", "torch"] = Field(
        "auto", description="Implementation of the kernels; `auto` takes Triton on CUDA, else torch."
    )
    deepspeed: dict[str, Any] = Field(
        description="DeepSpeed's own configuration: ZeRO, bf16, optimizer, scheduler."
    )
