"""What requests and answers of the server hold: the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo
from typing_extensions import Self

MAX_LIST, MAX_HISTORY, MAX_ITEMS = 1000, 10_000, 100_000
_INT64, _SECONDS = 2**63 - 1, 2**62

Id = (
    Annotated[int, Field(strict=True, ge=-_INT64, le=_INT64)] | Annotated[str, Field(min_length=1, max_length=256)]
)
Seconds = Annotated[int, Field(strict=True, ge=-_SECONDS, le=_SECONDS)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=256)]
Blend = Annotated[dict[Name, Number], Field(max_length=64)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EventBody(_Body):
    """One event of a history."""

    item: Id = Field(description="Raw id of the item.")
    behaviour: dict[Name, Number] = Field(
        max_length=64, description="Named values, as the data set has them.", examples=[{"rating": 5}]
    )
    time: Seconds = Field(description="Seconds.")


History = Annotated[list[EventBody], Field(max_length=MAX_HISTORY)]


class _Asked(_Body):
    user: Id | None = Field(None, description="Raw id of a user; either this or history.")
    history: History | None = Field(None, description="Events in any order, of which nothing is kept.")
    at: Seconds | None = Field(
        None, description="Moment of the request; that of the last event of the history if left out."
    )
    blend: Blend | None = Field(
        None, description="Lambda of each ranking task; 0 for those not named. The served one if left out."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.user is None) == (self.history is None):
            raise ValueError("give either user or history")
        return self


class RecommendBody(_Asked):
    """A list is asked for."""

    k: Annotated[int, Field(strict=True, ge=1, le=MAX_LIST)] = Field(10, description="Entries wanted.")
    candidates: Annotated[int, Field(strict=True, ge=1, le=MAX_LIST)] | None = Field(
        None, description="Items that retrieval hands to ranking; 100 or k, whichever is more, if left out."
    )
    seen: Literal["exclude", "keep"] = Field("exclude", description="Whether items of the history may come again.")
    allow: Annotated[list[Id], Field(max_length=MAX_ITEMS)] | None = Field(
        None, description="Only these items may appear."
    )
    deny: Annotated[list[Id], Field(max_length=MAX_ITEMS)] | None = Field(
        None, description="These items may not appear."
    )

    @field_validator("candidates")
    @classmethod
    def _no_fewer(cls, candidates: int | None, info: ValidationInfo) -> int | None:
        k = info.data.get("k", 1)
        if candidates is not None and candidates < k:
            raise ValueError(f"{candidates} is below k = {k}: ranking orders what retrieval hands it")
        return candidates


class ScoreBody(_Asked):
    """Items are to be scored for somebody."""

    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_LIST)] = Field(description="Raw ids.")


class EventsBody(_Body):
    """Events are appended to a user's history."""

    user: Id = Field(description="Raw id of a user, known before or not.")
    events: Annotated[list[EventBody], Field(min_length=1, max_length=MAX_HISTORY)]


class HistoryBody(_Body):
    """The history of a user is asked for."""

    user: Id
    last: Annotated[int, Field(strict=True, ge=1, le=MAX_HISTORY)] = Field(50, description="Latest events wanted.")


class EntryAnswer(BaseModel):
    """One item."""

    item: int | str
    title: str | None = Field(None, description="What the item is called, where the data set says so.")
    score: float = Field(description="log_retrieval plus the sum of lambda times log probability.")
    log_retrieval: float = Field(description="Natural logarithm of the retrieval probability.")
    probabilities: dict[str, float] = Field(description="Of each ranking task, by its rule.")


class RecommendAnswer(BaseModel):
    """A list, best first."""

    version: str = Field(description="Weights, catalogue and blend that gave this answer.")
    source: Literal["model", "popularity"] = Field(description="popularity where no event is known.")
    num_unknown_items: int = Field(description="Events left out: the catalogue does not have their items.")
    entries: list[EntryAnswer]


class ScoreAnswer(BaseModel):
    """Scores in the order of the items asked for; null where the catalogue does not have the item."""

    version: str
    num_unknown_items: int
    entries: list[EntryAnswer | None]


class EventsAnswer(BaseModel):
    """What was appended."""

    version: str
    num_events: int = Field(description="Events of the user that the model knows now.")
    num_unknown_items: int = Field(description="Appended events whose items the catalogue does not have.")


class EventAnswer(BaseModel):
    """One event."""

    item: int | str
    title: str | None = None
    behaviour: dict[str, float]
    time: int


class HistoryAnswer(BaseModel):
    """The latest events of a user, oldest first."""

    version: str
    num_events: int
    events: list[EventAnswer]


class ModelAnswer(BaseModel):
    """What is served."""

    version: str
    tasks: list[str] = Field(description="Rules of the ranking tasks.")
    blend: dict[str, float] = Field(description="Lambda of each task where a request names none.")
    behaviours: list[dict[str, float]]
    num_items: int
    max_events: int = Field(description="Latest events of a history that the model reads.")
    users: list[int | str] = Field(description="Some users of the data set.")


class SwapAnswer(BaseModel):
    """What answers now."""

    version: str
    changed: bool


class Problem(BaseModel):
    """One thing that is wrong with a request."""

    type: str
    loc: list[str | int] = Field(description="Where: body, then the field.")
    msg: str


class Refusal(BaseModel):
    """Why a request was refused."""

    detail: list[Problem] | str
