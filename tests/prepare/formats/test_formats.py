"""Every format, on a few lines as its publisher writes them, and on similar files that must be refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.prepare.raw_files import refusal, sequences, write_raw
from unigrf_dist.errors import UserError
from unigrf_dist.prepare.formats import FORMATS, MAPPED_FORMATS, describe
from unigrf_dist.prepare.pipeline import prepare
from unigrf_dist.prepare.source import ColumnMapping


def rating(value: float) -> dict[str, float]:
    return {"rating": value}


def test_the_formats_of_the_command_line() -> None:
    assert list(FORMATS) == ["movielens-1m", "movielens-20m", "amazon", "kuairand", "movietweetings", "yambda"]
    assert list(MAPPED_FORMATS) == ["csv", "jsonl", "parquet"]


def test_movielens_1m(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "ratings.dat", "1::1193::5::978300760", "1::661::3::978302109")
    prepare("movielens-1m", raw=tmp_path / "raw", out=tmp_path / "out")
    assert sequences(tmp_path / "out") == {1: [(1193, rating(5), 978300760), (661, rating(3), 978302109)]}


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.csv.gz"])
def test_movielens_20m(tmp_path: Path, name: str) -> None:
    header = "userId,movieId,rating,timestamp"
    write_raw(tmp_path / "raw", name, header, "1,2,3.5,1112486027", "1,29,0.5,1112484676")
    manifest = prepare("movielens-20m", raw=tmp_path / "raw", out=tmp_path / "out").manifest
    assert sequences(tmp_path / "out") == {1: [(29, rating(0.5), 1112484676), (2, rating(3.5), 1112486027)]}
    assert manifest.behaviours == [rating(0.5), rating(3.5)]


def test_a_table_that_was_written_anew_may_have_quotes(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings.csv", '"userId","movieId","rating","timestamp"', '"1",2,"3.5",7')
    prepare("movielens-20m", raw=raw, out=tmp_path / "out")
    assert sequences(tmp_path / "out") == {1: [(2, rating(3.5), 7)]}


def test_movietweetings(tmp_path: Path) -> None:
    """IMDb numbers are written with leading zeros; 0 is a rating."""
    write_raw(tmp_path / "raw", "ratings.dat", "1::0054890::0::1381945744", "2::1408101::10::1382400295")
    prepare("movietweetings", raw=tmp_path / "raw", out=tmp_path / "out")
    assert sequences(tmp_path / "out") == {
        1: [(54890, rating(0), 1381945744)],
        2: [(1408101, rating(10), 1382400295)],
    }


def test_yambda(tmp_path: Path) -> None:
    """Types as published; what is no listen has no played ratio. Times from 0 on are no mistake there."""
    rows = {
        "uid": pa.array([10, 10, 20, 20], pa.uint32()),
        "timestamp": pa.array([0, 5, 15_929_455, 15_929_460], pa.uint32()),
        "item_id": pa.array([7, 7, 9, 9], pa.uint32()),
        "is_organic": pa.array([1, 1, 0, 0], pa.uint8()),
        "event_type": pa.array(["listen", "like", "listen", "listen"]).dictionary_encode(),
        "played_ratio_pct": pa.array([100, None, 49, 50], pa.uint16()),
        "track_length_seconds": pa.array([180, None, 200, 200], pa.uint32()),
    }
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "raw" / "multi_event.parquet")
    manifest = prepare("yambda", raw=tmp_path / "raw", out=tmp_path / "out").manifest
    listen, like = {"listen": 1.0, "like": 0.0}, {"listen": 0.0, "like": 1.0}
    assert sequences(tmp_path / "out") == {
        10: [(7, {**listen, "organic": 1.0, "played": 100.0}, 0), (7, {**like, "organic": 1.0}, 5)],
        20: [
            (9, {**listen, "organic": 0.0, "played": 40.0}, 15_929_455),
            (9, {**listen, "organic": 0.0, "played": 50.0}, 15_929_460),
        ],
    }
    assert manifest.warnings == []


USERS_FIRST = ["A1ZY0K46FYOTB6,1403790965,5.0,1373673600", "#oc-R1VK4A,130466578X,1.0,1373673601"]


def test_amazon_ratings_of_2014(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "ratings_Beauty.csv", *USERS_FIRST)
    prepare("amazon", raw=raw, out=tmp_path / "out")
    assert sequences(tmp_path / "out") == {
        "#oc-R1VK4A": [("130466578X", rating(1), 1373673601)],
        "A1ZY0K46FYOTB6": [("1403790965", rating(5), 1373673600)],
    }


def test_amazon_ratings_of_2018_have_the_item_first(tmp_path: Path) -> None:
    lines = [",".join([item, user, *rest]) for user, item, *rest in (line.split(",") for line in USERS_FIRST)]
    write_raw(tmp_path / "new", "Beauty.csv", *lines)
    write_raw(tmp_path / "old", "Beauty.csv", *USERS_FIRST)
    for age in ("new", "old"):
        prepare("amazon", raw=tmp_path / age, out=tmp_path / f"out-{age}")
    assert sequences(tmp_path / "out-new") == sequences(tmp_path / "out-old")


def test_amazon_ratings_of_2023_have_a_header_and_milliseconds(tmp_path: Path) -> None:
    header = "user_id,parent_asin,rating,timestamp"
    raw = write_raw(tmp_path, "Beauty.csv.gz", header, "AEYORY2AVPMCPDV57CE337YU5LXA,B08BBQ29N5,3.0,1634275259292")
    prepare("amazon", raw=raw, out=tmp_path / "out")
    assert sequences(tmp_path / "out") == {"AEYORY2AVPMCPDV57CE337YU5LXA": [("B08BBQ29N5", rating(3), 1634275259)]}


def test_amazon_reviews_of_2018(tmp_path: Path) -> None:
    lines = [
        '{"overall": 5.0, "verified": true, "reviewTime": "09 4, 2015", "reviewerID": "ALJ66O1Y6SLHA",'
        ' "asin": "B000K2PJ4K", "style": {"Size:": " Big \\"Boys\\""}, "reviewText": "Great, really",'
        ' "unixReviewTime": 1441324800}',
        '{"overall": 2.0, "reviewerID": "ALJ66O1Y6SLHA", "asin": "0001", "unixReviewTime": 1441238400}',
    ]
    write_raw(tmp_path / "raw", "AMAZON_FASHION.json.gz", *lines)
    prepare("amazon", raw=tmp_path / "raw", out=tmp_path / "out")
    assert sequences(tmp_path / "out") == {
        "ALJ66O1Y6SLHA": [("0001", rating(2), 1441238400), ("B000K2PJ4K", rating(5), 1441324800)]
    }


def test_amazon_reviews_of_2023(tmp_path: Path) -> None:
    line = (
        '{"rating": 4.0, "title": "Nice", "images": [], "asin": "B00YQ6X8EO", "parent_asin": "B00YQ6X8EP",'
        ' "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, "helpful_vote": 0}'
    )
    raw = write_raw(tmp_path, "All_Beauty.jsonl.gz", line)
    prepare("amazon", raw=raw, out=tmp_path / "out")
    assert sequences(tmp_path / "out") == {"AGKHLEW2SOWHNMFQIJGBECAF7INQ": [("B00YQ6X8EP", rating(4), 1588687728)]}


def test_a_bad_review_is_named_by_its_line(tmp_path: Path) -> None:
    good = '{"overall": 5.0, "reviewerID": "A1", "asin": "B1", "unixReviewTime": 1}'
    write_raw(tmp_path / "a", "x.jsonl", good, "oops", good)
    assert "x.jsonl, line 2: column reviewerID is empty" in refusal(tmp_path / "out", "amazon", tmp_path / "a")
    write_raw(tmp_path / "b", "x.jsonl", good, good.replace("5.0", '"NaN"'))
    assert "x.jsonl, line 2: column overall: 'NaN' is not finite" in refusal(
        tmp_path / "out", "amazon", tmp_path / "b"
    )


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("x.csv", "1,10,5,100", "line 1: '1,10,5,100' begins with no user,item and no item,user"),
        ("x.jsonl", '{"user": 1}', "reviews have neither 'reviewerID' nor 'user_id', but user"),
        ("x.jsonl", "user,item", "line 1: 'user,item' is no JSON object"),
        ("x.json", "[1, 2]", "line 1: '[1, 2]' is no JSON object"),
        ("x.csv", "", "is empty"),
    ],
)
def test_a_file_of_another_origin_is_refused(tmp_path: Path, name: str, line: str, expected: str) -> None:
    raw = write_raw(tmp_path, name, line)
    assert expected in refusal(tmp_path / "o" / "out", "amazon", raw)


KUAIRAND_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)


def test_kuairand(tmp_path: Path) -> None:
    """Logs of random exposure stay out; a video may come again."""
    early = "0,5,20220408,0,1649348000999,1,0,0,0,0,0,1,5000,6000,0,0,0,0,1"
    late = "0,5,20220422,0,1650560000001,0,0,0,0,0,1,0,0,6000,0,0,0,0,1"
    write_raw(tmp_path / "raw" / "data", "log_standard_4_22_to_5_08_1k.csv", KUAIRAND_HEADER, late)
    write_raw(tmp_path / "raw" / "data", "log_standard_4_08_to_4_21_1k.csv", KUAIRAND_HEADER, early)
    write_raw(tmp_path / "raw" / "data", "log_random_4_22_to_5_08_1k.csv", KUAIRAND_HEADER, early)
    prepare("kuairand", raw=tmp_path / "raw", out=tmp_path / "out")
    names = ("click", "like", "follow", "comment", "forward", "hate", "long_view")
    first = dict(zip(names, (1, 0, 0, 0, 0, 0, 1), strict=True))
    second = dict(zip(names, (0, 0, 0, 0, 0, 1, 0), strict=True))
    assert sequences(tmp_path / "out") == {0: [(5, first, 1649348000), (5, second, 1650560000)]}


def test_feedback_other_than_zero_and_one_is_refused(tmp_path: Path) -> None:
    row = "0,5,20220408,0,1649348000999,2,0,0,0,0,0,1,5000,6000,0,0,0,0,1"
    raw = write_raw(tmp_path, "log_standard.csv", KUAIRAND_HEADER, row)
    assert "line 2: column is_click: '2' is outside [0, 1]" in refusal(tmp_path / "o" / "out", "kuairand", raw)


def test_own_csv_with_another_delimiter(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.tsv", "when\twho\tnote\twhat", "5\t1\ta,b\t7")
    columns = ColumnMapping(user="who", item="what", timestamp="when", delimiter="\t")
    prepare("csv", raw=raw, out=tmp_path / "out", columns=columns)
    assert sequences(tmp_path / "out") == {1: [(7, {"event": 1.0}, 5)]}


def test_own_columns_have_default_names(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, "raw.csv", "user_id,item_id,timestamp", "1,7,5")
    prepare("csv", raw=raw, out=tmp_path / "out")
    assert sequences(tmp_path / "out") == {1: [(7, {"event": 1.0}, 5)]}


def test_formats_describe_without_reading_rows(tmp_path: Path) -> None:
    write_raw(tmp_path, "ratings.dat", "not looked at yet")
    source = describe("movielens-1m", tmp_path)
    assert source.columns == ["user", "item", "timestamp", "rating"]
    with pytest.raises(UserError, match="knows its columns"):
        describe("movielens-1m", tmp_path, ColumnMapping())
