"""The one schema of every YAML file under ``configs/``.

A section is frozen, refuses unknown keys, and checks its own ranges; what two sections must agree on is
checked in ``rules.py``. Durations, sizes and counts carry their unit in the name or in the description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

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
    path: Path = Field(description="Folder written by `unigrf prepare` or `unigrf synthesize`.")
    max_events: int = Field(200, ge=1, description="Events of history the model sees; the latest are kept.")
    shuffle_users: int = Field(
        8192, ge=1, description="Users shuffled together; the stream's memory grows with it."
    )
    prefetch_batches: int = Field(2, ge=1, description="Batches read ahead of the step.")


class ModelConfig(Section):
    backbone: Literal["hstu", "llama"] = Field(
        "hstu", description="Sequence transducer over the interleaved tokens."
    )
    width: int = Field(50, ge=1, description="Width of item vectors and hidden states.")
    blocks: int = Field(2, ge=1, description="Transducer blocks.")
    heads: int = Field(1, ge=1, description="Attention heads per block.")
    head_width: int = Field(50, ge=1, le=256, description="Width of one head's queries, keys and values.")
    key_heads: int | None = Field(
        None, ge=1, description="Heads of keys and values, each shared by several of queries; `llama` only."
    )
    feedforward_width: int | None = Field(
        None, ge=1, description="Width between the halves of SwiGLU, 8/3 of `width` if left out; `llama` only."
    )
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="Dropout on the token vectors and inside each block.")
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


class TableConfig(Section):
    sharding: Literal["row_wise", "table_wise", "column_wise", "planner"] = Field(
        "row_wise", description="How TorchRec cuts the item table; `planner` lets it choose."
    )
    optimizer: Literal["adam", "rowwise_adagrad", "adagrad", "sgd"] = Field(
        "adam", description="Optimizer fused into the tables' backward."
    )
    learning_rate: float = Field(1e-3, gt=0, description="Follows the DeepSpeed scheduler in proportion.")
    betas: tuple[float, float] = Field((0.9, 0.98), description="Decay rates of Adam's moments.")
    eps: float = Field(1e-8, gt=0)
    init_std: float = Field(0.02, gt=0, description="Standard deviation of the initial item vectors.")


class RetrievalConfig(Section):
    negatives: Literal["full", "sampled", "in_batch", "mixed"] = Field(
        "full",
        description="Softmax over the catalogue, shared samples, the items of the rank's batch, or the last two.",
    )
    num_negatives: int = Field(512, ge=1, description="Shared samples per step (`sampled` and `mixed`).")
    distribution: Literal["uniform", "log_popularity"] = Field(
        "uniform", description="How samples are drawn; `log_popularity` is Zipfian in the popularity rank."
    )
    mask_seen_negatives: bool = Field(
        True,
        description="Mask negatives that the user has seen by then, as evaluation removes them.",
    )
    logq_correction: bool = Field(True, description="Correct the logits for unequal sampling probabilities.")
    temperature: float = Field(0.05, gt=0)
    normalize: bool = Field(
        True, description="L2-normalise hidden states and item vectors, here and in evaluation."
    )


class RankingTask(Section):
    rule: str = Field(description="A rule on the behaviour, such as `rating >= 4` or `click == 1`.")
    weight: float = Field(1.0, gt=0)

    @field_validator("rule")
    @classmethod
    def _rule_can_be_read(cls, rule: str) -> str:
        return str(parse_rule(rule))


class WeighterConfig(Section):
    strategy: Literal["gradient", "descent_rate", "uncertainty", "static"] = Field(
        "static", description="How the two task losses are balanced."
    )
    retrieval: float = Field(
        1.0, ge=0, description="With `ranking` the proportion that `static` keeps and the others start from."
    )
    ranking: float = Field(1.0, ge=0)
    gamma: float = Field(0.5, ge=0, description="Favour for the task that lags behind (`gradient`); 0 for none.")
    window_steps: int = Field(50, ge=1, description="Steps of a window of losses (`descent_rate`).")
    temperature: float = Field(2.0, gt=0, description="Of the softmax over the tasks (`descent_rate`).")
    smoothing: float = Field(
        0.98, ge=0, lt=1, description="Share of the old in the smoothed norms, losses and weights, per step."
    )
    warmup_steps: int = Field(100, ge=0, description="Steps before the weights leave their start.")
    min_weight: float = Field(0.05, ge=0, le=1, description="Least weight of a task; both sum to 2.")
    exact_every_steps: int | None = Field(
        None,
        ge=1,
        description="Also measure both norms at the last block's parameters every so many steps, for comparison.",
    )


class EnhancerConfig(Section):
    candidates: int = Field(8, ge=1, description="Candidate tokens of each user.")
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
    round_epochs: int = Field(1, ge=1, description="Epochs after which candidates are selected anew.")

    @model_validator(mode="after")
    def _within_the_candidates(self) -> EnhancerConfig:
        if max(self.hard_negatives, self.soft_positives) > self.candidates:
            raise ValueError(
                f"hard_negatives = {self.hard_negatives} and soft_positives = {self.soft_positives} "
                f"must not exceed candidates = {self.candidates}"
            )
        return self


class ObjectiveConfig(Section):
    retrieval: RetrievalConfig = RetrievalConfig()
    ranking: list[RankingTask] = Field(min_length=1, max_length=16, description="One logit per task.")
    weighter: WeighterConfig = WeighterConfig()
    enhancer: EnhancerConfig | None = Field(None, description="Let ranking teach retrieval; off if left out.")


class SelectionConfig(Section):
    metric: str = Field(
        "ndcg@10", description="Validation figure that picks the best model, e.g. `ndcg@10`, `auc`."
    )
    every_epochs: int = Field(1, ge=1, description="Epochs between two validations.")
    patience: int | None = Field(
        None, ge=1, description="Validations without a better figure before training stops."
    )


class TrainConfig(Section):
    global_batch_users: int = Field(128, ge=1, description="Users per step, over all ranks together.")
    epochs: int = Field(ge=1)
    seed: int = Field(42, ge=0, lt=2**31)
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "highest",
        description="Factors of fp32 products in training: fp32, TF32 on GPUs, bf16 where the chip multiplies it.",
    )
    log_every_steps: int = Field(10, ge=1)
    checkpoint_every_epochs: int = Field(1, ge=1)
    keep_checkpoints: int = Field(1, ge=1, description="Latest checkpoints kept, besides the best one.")
    timeout_seconds: int = Field(
        600, ge=10, description="Longest wait of a collective before the run ends with an error."
    )
    selection: SelectionConfig = SelectionConfig()


class EvaluateConfig(Section):
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
    kernel: Literal["auto", "triton", "torch"] = Field("auto", description="`auto` takes Triton on CUDA.")
    deepspeed: dict[str, Any] = Field(
        description="DeepSpeed's own configuration: ZeRO, bf16, optimizer, scheduler."
    )
