"""The paths of the server."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from unigrf_dist import __version__
from unigrf_dist.errors import UserError
from unigrf_dist.serve.server.answers import (
    Answered,
    Answers,
    Asked,
    Location,
    Refused,
    checked,
    history_of,
    raw_event,
)
from unigrf_dist.serve.server.batching import Batcher, Overloaded
from unigrf_dist.serve.server.gate import Gate
from unigrf_dist.serve.server.live_users import Full, LiveUsers
from unigrf_dist.serve.server.metrics import Metrics
from unigrf_dist.serve.server.schema import (
    EventAnswer,
    EventsAnswer,
    EventsBody,
    HistoryAnswer,
    HistoryBody,
    ModelAnswer,
    RecommendAnswer,
    RecommendBody,
    Refusal,
    ScoreAnswer,
    ScoreBody,
    SwapAnswer,
)
from unigrf_dist.serve.server.versions import Version, Versions

_SOME_USERS = 50
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body is no JSON."},
    401: {"model": Refusal, "description": "A bearer token is needed."},
    403: {"model": Refusal, "description": "Asked for under a name that is not loopback."},
    413: {"model": Refusal, "description": "The body is too large."},
    422: {"model": Refusal, "description": "A field is wrong; loc says which."},
    503: {"model": Refusal, "description": "Too much to do: ask again."},
}


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        token: bearer token; None for none.
        max_bytes: largest body.
        max_batch: requests answered together.
        max_waiting: requests that may wait.
        max_events: appended events held in memory.
        threads: threads that compute.
    """

    token: str | None = None
    max_bytes: int = 8 << 20
    max_batch: int = 32
    max_waiting: int = 1024
    max_events: int = 1_000_000
    threads: int = 1


class Server:
    """What the paths share while the application lives.

    Args:
        versions: what is served.
        limits: what is taken.
    """

    def __init__(self, versions: Versions, limits: Limits) -> None:
        self.versions, self.limits = versions, limits
        self.users = LiveUsers(max_events=limits.max_events)
        self.batcher: Batcher[Asked, Answered] | None = None
        self.metrics = Metrics(
            versions,
            num_waiting=lambda: 0 if self.batcher is None else self.batcher.num_waiting,
            num_events=lambda: self.users.num_events,
        )

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Threads that answer; at the end what waits is answered first."""
        answers = Answers(self.versions, self.users, on_batch=self.metrics.batch)
        self.batcher = Batcher(
            answers,
            max_batch=self.limits.max_batch,
            max_waiting=self.limits.max_waiting,
            threads=self.limits.threads,
        )
        loop = asyncio.get_running_loop()
        hears_signals = threading.current_thread() is threading.main_thread()
        if hears_signals:
            loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, self.swap_or_say))
        try:
            yield
        finally:
            if hears_signals:
                loop.remove_signal_handler(signal.SIGHUP)
            batcher, self.batcher = self.batcher, None
            await asyncio.to_thread(batcher.close)

    async def answer(self, body: Asked) -> Answered:
        """The answer to one request, computed with those that wait beside it."""
        if self.batcher is None:
            raise Overloaded
        return await asyncio.wrap_future(self.batcher.submit(body))

    def swap(self) -> tuple[Version, bool]:
        """`Versions.swap`, counted."""
        try:
            version, changed = self.versions.swap()
        except UserError:
            self.metrics.swap("failed")
            raise
        self.metrics.swap("changed" if changed else "unchanged")
        return version, changed

    def swap_or_say(self) -> None:
        """`swap`, as a signal asks for it: the outcome goes to the terminal."""
        try:
            version, changed = self.swap()
        except UserError as error:
            print(f"swap refused, the version before goes on: {error}", flush=True)
        else:
            print(f"{'now' if changed else 'still'} serving {version.name}", flush=True)


def make_app(versions: Versions, limits: Limits) -> FastAPI:
    """The application.

    Args:
        versions: what is served.
        limits: what is taken, and from whom.
    """
    server = Server(versions, limits)
    app = FastAPI(
        title="unigrf",
        version=__version__,
        description="Lists of one model that retrieves and ranks.",
        lifespan=server.running,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.server = server
    for router in (_answers(server), _facts(server), _page()):
        app.include_router(router)
    app.add_exception_handler(RequestValidationError, _bad_body)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(Overloaded, _overloaded)
    app.add_middleware(
        Gate,
        token=limits.token,
        max_bytes=limits.max_bytes,
        on_answer=server.metrics.answered,
    )
    return app


def _answers(server: Server) -> APIRouter:
    router = APIRouter(prefix="/v1", responses=_REFUSALS)

    @router.post("/recommend", response_model=RecommendAnswer)
    async def recommend(body: RecommendBody) -> Answered:
        """A list for a user, or for a history that the request brings."""
        return await server.answer(body)

    @router.post("/score", response_model=ScoreAnswer)
    async def score(body: ScoreBody) -> Answered:
        """Both stages' scores of given items, over the whole catalogue."""
        return await server.answer(body)

    @router.post("/events")
    def events(body: EventsBody) -> EventsAnswer:
        """Append events to a user's history; they hold from the next request on, until the server ends."""
        version = server.versions.current
        known = history_of(version, body.events, ("body", "events"))
        user = checked(("body", "user"), version.user_id, body.user)
        server.users.append(user, [raw_event(event) for event in body.events])
        history = server.users.history(version, user)
        return EventsAnswer(
            version=version.name,
            num_events=len(history.events.item_ids),
            num_unknown_items=known.num_unknown,
        )

    @router.post("/history")
    def history(body: HistoryBody) -> HistoryAnswer:
        """The latest events of a user."""
        version = server.versions.current
        user = checked(("body", "user"), version.user_id, body.user)
        found = server.users.history(version, user).events
        last = slice(max(0, len(found.item_ids) - body.last), None)
        vocabulary, behaviours = version.recommender.vocabulary, version.recommender.run.behaviours
        rows = zip(
            found.item_ids[last].tolist(), found.behaviours[last].tolist(), found.timestamps[last].tolist(),
            strict=True,
        )  # fmt: skip
        return HistoryAnswer(
            version=version.name,
            num_events=len(found.item_ids),
            events=[
                EventAnswer(
                    item=vocabulary.raw_items[item],
                    title=vocabulary.title(item),
                    behaviour=behaviours[code],
                    time=time,
                )
                for item, code, time in rows
            ],
        )

    @router.post("/swap", responses={409: {"model": Refusal, "description": "The version before goes on."}})
    def swap() -> SwapAnswer:
        """Load the served folder again: weights, catalogue and blend together, while requests are answered."""
        try:
            version, changed = server.swap()
        except UserError as error:
            raise HTTPException(409, f"the version before goes on: {error}") from error
        return SwapAnswer(version=version.name, changed=changed)

    return router


def _facts(server: Server) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/model", responses={key: _REFUSALS[key] for key in (401, 403)})
    def model() -> ModelAnswer:
        """What is served."""
        version = server.versions.current
        recommender = version.recommender
        return ModelAnswer(
            version=version.name,
            tasks=recommender.tasks,
            blend={task: recommender.run.blend.get(task, 0.0) for task in recommender.tasks},
            behaviours=recommender.run.behaviours,
            num_items=len(recommender.vocabulary.raw_items),
            max_events=recommender.run.config.data.max_events,
            users=version.some_users(_SOME_USERS),
        )

    @router.get("/metrics", response_class=Response, responses={key: _REFUSALS[key] for key in (401, 403)})
    def metrics() -> Response:
        """Counts and times, in the text format of Prometheus."""
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "alive"}

    @router.get("/ready", responses={503: _REFUSALS[503]})
    async def ready() -> dict[str, str]:
        """Whether requests are answered now."""
        if server.batcher is None:
            raise Overloaded
        return {"status": "ready", "version": server.versions.current.name}

    return router


def _page() -> APIRouter:
    router = APIRouter()
    text = files("unigrf_dist.serve.server").joinpath("page.html").read_text(encoding="utf-8")

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(text, headers={"content-security-policy": _POLICY, "cache-control": "no-store"})

    return router


_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def _problems(status: int, problems: Sequence[tuple[str, Location, str]]) -> JSONResponse:
    # Without the input: what can not be parsed can mostly not be written either.
    detail = [
        {"type": kind, "loc": [_plain(part) for part in location], "msg": _plain(text)}
        for kind, location, text in problems
    ]
    return JSONResponse({"detail": detail}, status)


def _plain(part: str | int) -> str | int:
    return part.encode("utf-8", "replace").decode() if isinstance(part, str) else part


async def _bad_body(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _problems(422, [(each["type"], each["loc"], each["msg"]) for each in error.errors()])


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return _problems(422, [("value_error", error.location, error.problem)])


async def _user_error(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Full):
        return JSONResponse({"detail": str(error)}, 503)
    return _problems(422, [("value_error", ("body",), str(error))])


async def _overloaded(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "too many requests wait; ask again"}, 503, {"retry-after": "1"})
