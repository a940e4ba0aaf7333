"""SASRec and HSTU of RecTools on a split, within a budget of CPU time; runs in an environment of its own.

    python tools/peers/rectools_peer.py --split DIR --out DIR --model sasrec --cpu-minutes 60 --set n_factors=128

It is trained on the training events, epoch by epoch; NDCG@10 on validation picks the epoch, and the lists of that
epoch for the test events (asked with the validation event in the history) are written. What a user has met by then
is not in a list.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import HSTUModel, SASRecModel

MODELS = {"sasrec": SASRecModel, "hstu": HSTUModel}
LONGEST = 200


def interactions(*tables: Path) -> pd.DataFrame:
    events = pd.concat([pd.read_parquet(table) for table in tables], ignore_index=True)
    # Equal seconds keep their order by microseconds.
    moment = pd.to_datetime(events.timestamp, unit="s") + pd.to_timedelta(events.position, unit="us")
    columns = {Columns.User: events.user, Columns.Item: events.item, Columns.Datetime: moment}
    return pd.DataFrame({**columns, Columns.Weight: 1.0})


def lists_of(model, known: Dataset, users: np.ndarray, k: int) -> pd.DataFrame:
    found = model.recommend(users=users, dataset=known, k=k, filter_viewed=True)
    return found[[Columns.User, Columns.Rank, Columns.Item]].set_axis(["user", "rank", "item"], axis=1)


def ndcg_at_10(lists: pd.DataFrame, targets: pd.DataFrame) -> float:
    rank = targets.merge(lists, how="left", on=["user", "item"])["rank"]
    return float((1 / np.log2(1 + rank[rank <= 10])).sum() / len(targets))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", type=Path, required=True, help="folder that tools.peers.split wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the lists and of log.jsonl")
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument(
        "--cpu-minutes", type=float, required=True, help="training ends with the epoch that passes it"
    )
    parser.add_argument("--every", type=int, default=2, help="epochs between validations")
    parser.add_argument("--patience", type=int, default=5, help="validations without a better one")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="arguments of the model, as JSON"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    warnings.filterwarnings("ignore")
    arguments.out.mkdir(parents=True)
    training, validation = (arguments.split / f"{name}.parquet" for name in ("training", "validation"))
    settings = {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in arguments.set)}
    seed_everything(arguments.seed)
    known, targets = Dataset.construct(interactions(training)), pd.read_parquet(validation)
    model = MODELS[arguments.model](session_max_len=LONGEST, epochs=1, **settings)
    best, state, since, epoch, start = -1.0, None, 0, 0, time.process_time()
    with (arguments.out / "log.jsonl").open("a") as log:
        while time.process_time() - start < 60 * arguments.cpu_minutes and since < arguments.patience:
            model.fit_partial(known, min_epochs=arguments.every, max_epochs=arguments.every)
            epoch += arguments.every
            trained = (time.process_time() - start) / 60
            value = ndcg_at_10(lists_of(model, known, targets.user.to_numpy(), 10), targets)
            since += 1
            if value > best:
                best, since, state = value, 0, copy.deepcopy(model.torch_model.state_dict())
            line = {"epoch": epoch, "cpu_minutes": round(trained, 2), "validation_ndcg@10": round(value, 4)}
            log.write(json.dumps({**line, **settings}) + "\n")
            log.flush()
            print(line, flush=True)
    model.torch_model.load_state_dict(state)
    users = pd.read_parquet(arguments.split / "test.parquet").user.to_numpy()
    with torch.no_grad():
        lists = lists_of(model, Dataset.construct(interactions(training, validation)), users, LONGEST)
    lists.to_parquet(arguments.out / "test.parquet", index=False)


if __name__ == "__main__":
    main()
