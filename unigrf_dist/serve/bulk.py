"""Lists of many users into one Parquet file, with raw ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unigrf_dist.errors import UserError
from unigrf_dist.serve.asked import Asked
from unigrf_dist.serve.lists import Lists
from unigrf_dist.serve.recommender import Recommender
from unigrf_dist.serve.stages import ListOptions

_ROWS_OF_A_GROUP = 1 << 17


def write_lists(
    recommender: Recommender,
    asked: Asked,
    options: ListOptions,
    out: Path,
    *,
    explain: bool,
    batch_users: int,
    progress: Callable[[int, int], None],
) -> None:
    """Answer all requests and write the lists; the file appears only when all went well.

    Columns: ``user``, ``rank`` from 1, ``item``, ``score``, ``source`` (``model`` or ``popularity``); with
    ``explain`` also ``log_retrieval`` and a ``probability[TASK]`` of each ranking task, null where the model was
    not asked.

    Args:
        recommender: the run.
        asked: the requests.
        options: what kind of lists.
        out: Parquet file.
        explain: also write the scores of both stages.
        batch_users: requests computed together; changes no list.
        progress: told the requests done and their total.

    Raises:
        UserError: the file can't be written, or a request is refused.
    """
    partial = out.with_name(f"{out.name}.partial")
    schema = _schema(recommender, asked, explain)
    raw_items = recommender.run.items.raw_ids
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as file:
            tables: list[pa.Table] = []
            done = 0
            for batch in asked.batches(batch_users):
                lists = recommender.lists(batch.histories, batch.at, options)
                tables.append(_table(schema, batch.names, lists, raw_items))
                if sum(len(table) for table in tables) >= _ROWS_OF_A_GROUP:
                    file.write_table(pa.concat_tables(tables))
                    tables = []
                done += len(batch.names)
                progress(done, len(asked))
            if tables:
                file.write_table(pa.concat_tables(tables))
        partial.replace(out)
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror or error}; name a file elsewhere") from error
    finally:
        partial.unlink(missing_ok=True)


def _schema(recommender: Recommender, asked: Asked, explain: bool) -> pa.Schema:
    fields = [
        ("user", asked.name_type),
        ("rank", pa.int32()),
        ("item", recommender.run.items.raw_ids.type),
        ("score", pa.float32()),
        ("source", pa.string()),
    ]
    if explain:
        fields += [("log_retrieval", pa.float32())]
        fields += [(f"probability[{task}]", pa.float32()) for task in recommender.tasks]
    return pa.schema(fields)


def _table(schema: pa.Schema, names: pa.Array, lists: Lists, raw_items: pa.Array) -> pa.Table:
    rows, places = (lists.items >= 0).nonzero(as_tuple=True)
    probabilities = lists.probabilities[rows, places].T.numpy()
    columns = [
        names.take(pa.array(rows.numpy())),
        pa.array(places.numpy().astype(np.int32) + 1),
        raw_items.take(pa.array(lists.items[rows, places].numpy())),
        pa.array(lists.scores[rows, places].numpy()),
        pa.array(np.where(lists.from_model[rows].numpy(), "model", "popularity")),
        pa.array(lists.log_retrieval[rows, places].numpy()),
        *(pa.array(values, from_pandas=True) for values in probabilities),
    ]
    return pa.Table.from_arrays([c.cast(f.type) for c, f in zip(columns, schema, strict=False)], schema=schema)
