"""What is served: one version of weights, catalogue and blend, and how the next one takes its place."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from unigrf_dist.data.sequences import Sequences
from unigrf_dist.errors import UserError
from unigrf_dist.serve.approximate import Search
from unigrf_dist.serve.blend_file import BLEND_FILE
from unigrf_dist.serve.export.bundle import MANIFEST_FILE
from unigrf_dist.serve.export.read import load_export
from unigrf_dist.serve.recommender import Recommender
from unigrf_dist.serve.vocabulary import RawId, raw_id
from unigrf_dist.train.checkpoints.folders import CheckpointFolders
from unigrf_dist.train.checkpoints.index import INDEX_FILE
from unigrf_dist.train.run_folder import CONFIG_FILE


@dataclass(frozen=True)
class Version:
    """One model with everything that belongs to it.

    Attributes:
        name: changes with the weights, the catalogue, the configuration and the blend.
        recommender: the model; it keeps users' histories, which end with it.
        reading: held by whoever reads users of the data set, which one thread can do at a time.
    """

    name: str
    recommender: Recommender
    reading: threading.Lock

    def user_id(self, user: RawId) -> RawId:
        """A user's id in the data set's type, so that 7 and "7" are one user; text where there is no data set.

        Raises:
            UserError: it is none.
        """
        dataset = self.recommender.run.dataset
        return raw_id(user, "string" if dataset is None else dataset.manifest.raw_user_type, "user")

    def data_set_history(self, user: RawId) -> Sequences:
        """What the data set knows of a user; no events if it does not have the user.

        Raises:
            UserError: the id is of another type than the data set's.
        """
        if self.recommender.run.dataset is None:
            return self.recommender.vocabulary.history([]).sequences
        with self.reading:
            return self.recommender.histories([user])

    def some_users(self, count: int) -> list[RawId]:
        """The first users of the data set; none of an export, which has no users."""
        if self.recommender.run.dataset is None:
            return []
        with self.reading:
            return self.recommender.users.raw_ids()[:count].to_pylist()


def open_version(folder: Path, *, checkpoint: str, kept_bytes: int, search: Search = "auto") -> Version:
    """Load what ``folder`` holds now, ready to answer.

    Args:
        folder: folder of a run or export; a symbolic link is followed once, so that the version is that of one.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        kept_bytes: memory for histories that are kept between requests.
        search: how the catalogue of an export is searched, as in ``from_pretrained``.

    Raises:
        UserError: as `Recommender`.
    """
    place = folder.resolve()
    if (place / MANIFEST_FILE).exists():
        recommender = Recommender.of(load_export(place), kept_bytes=kept_bytes, search=search)
    elif search == "ann":
        raise UserError(f"{folder}: --search ann takes an export; make one with `unigrf export --ann`")
    else:
        recommender = Recommender(place, checkpoint=checkpoint, kept_bytes=kept_bytes)
    version = Version(_name(place, recommender), recommender, threading.Lock())
    # Everything that is made at the first use is made here: later, several threads would make it.
    first = recommender.vocabulary.raw_items[0]
    behaviour = recommender.run.behaviours[0]
    recommender.recommend(history=[(first, behaviour, 0)], k=1)
    recommender.recommend(history=[], k=1)
    version.some_users(1)
    return version


def _name(place: Path, recommender: Recommender) -> str:
    checkpoint = recommender.run.checkpoint
    if recommender.run.dataset is None:
        files = [place / MANIFEST_FILE]  # it has the hashes of all others
    else:
        files = [
            place / CONFIG_FILE,
            CheckpointFolders(place).resolve(checkpoint) / INDEX_FILE,
            place / BLEND_FILE,
        ]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if file.exists() else b"")
    return f"{place.name}/{checkpoint}-{digest.hexdigest()[:8]}"


class Versions:
    """The version that answers now. A request takes ``current`` once and so has one version throughout.

    Args:
        folder: folder of a run or export, or a symbolic link to one, read again at every swap.
        checkpoint: ``best``, ``latest`` or a checkpoint's name.
        kept_bytes: memory for kept histories of one version; while one replaces another, both have theirs.
        search: how the catalogue of an export is searched, as in ``from_pretrained``.

    Raises:
        UserError: the folder can't be served.
    """

    def __init__(
        self, folder: Path, *, checkpoint: str = "best", kept_bytes: int, search: Search = "auto"
    ) -> None:
        self._folder, self._checkpoint, self._kept_bytes, self._search = folder, checkpoint, kept_bytes, search
        self._swapping = threading.Lock()
        self.current = self._load()

    def swap(self) -> tuple[Version, bool]:
        """Load the folder again and let it answer from now on; requests that have begun keep their version.

        Returns:
            The version that answers now, and whether it is another one than before.

        Raises:
            UserError: the folder can't be served now; the version before goes on.
        """
        with self._swapping:
            loaded = self._load()
            if loaded.name == self.current.name:
                return self.current, False
            self.current = loaded
            return loaded, True

    def _load(self) -> Version:
        return open_version(
            self._folder, checkpoint=self._checkpoint, kept_bytes=self._kept_bytes, search=self._search
        )
