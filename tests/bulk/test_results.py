"""What is in the files, whether other programs read it, and whether counting again finds what is wrong with it."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fake_proposer import FakeFactory, expected_proposals, write_pictures
from sharpmask.bulk.coco import as_proposals, to_coco
from sharpmask.bulk.listing import Listing
from sharpmask.bulk.plan import Plan, make_plan, read_plan
from sharpmask.bulk.results import count, done_chunks, finish, read_images, read_proposals, verify, write_chunk
from sharpmask.bulk.storage import Place
from sharpmask.bulk.worker import Failed, Found
from sharpmask.errors import ConfigError, DataError
from sharpmask.images import read_image
from sharpmask.proposal_rows import proposal_schema, proposal_table
from sharpmask.proposals.result import Proposals

COUNT = 11
BROKEN = 6


@pytest.fixture
def done(tmp_path: Path) -> Plan:
    """A run of eleven pictures in chunks of four, one of them broken; made without a process."""
    write_pictures(tmp_path / "in", COUNT)
    place = Place(str(tmp_path / "out"))
    plan = make_plan(place, Listing(str(tmp_path / "in")), 4, {"top": 3})
    propose = FakeFactory().make(None)
    for chunk in range(plan.chunks):
        outcomes: list[Found | Failed] = []
        for number, item in enumerate(plan.items(chunk), start=plan.first_id(chunk)):
            if number - 1 == BROKEN:
                outcomes.append(Failed("image", "broken"))
                continue
            found = propose(read_image(tmp_path / "in" / item.path))
            table = proposal_table(number, item.key, found, proposal_schema())
            outcomes.append(Found(16, 12, table))
        write_chunk(place, chunk, plan.first_id(chunk), plan.items(chunk), outcomes)
    finish(plan)
    return plan


def out(plan: Plan, name: str = "") -> Path:
    return Path(plan.place.url) / name


def numbers() -> list[int]:
    return [number for number in range(COUNT) if number != BROKEN]


def test_the_plan_is_what_it_was(done: Plan) -> None:
    again = read_plan(done.place)
    assert again is not None and again == done
    assert (done.images, done.chunks, done.chunk_size, done.kind) == (11, 3, 4, "images")
    assert [again.size(chunk) for chunk in range(3)] == [len(again.items(chunk)) for chunk in range(3)] == [4, 4, 3]
    assert [item.key for item in again.items(2)] == [f"000/{number:05d}.png" for number in (8, 9, 10)]
    keys = [item.key for item in again.samples(3)]
    assert keys == ["000/00000.png", "000/00005.png", "000/00010.png"]


def test_a_plan_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpmask.bulk.plan._CHUNKS_A_FILE", 2)
    (tmp_path / "list.txt").write_text("\n".join(f"{number}.jpg" for number in range(11)))
    plan = make_plan(Place(str(tmp_path / "out")), Listing(str(tmp_path / "list.txt")), 3, {})
    assert plan.chunks == 4 and len(list((tmp_path / "out" / "_plan").glob("listing-*"))) == 2
    assert [item.key for chunk in (3, 0, 2, 1) for item in plan.items(chunk)] == [
        f"{number}.jpg" for number in (9, 10, 0, 1, 2, 6, 7, 8, 3, 4, 5)
    ]
    other = pickle.loads(pickle.dumps(plan))
    assert other.items(3) == plan.items(3) and (other.images, other.options) == (11, {})
    (tmp_path / "out" / "_plan" / "listing-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"listing-00001\.parquet is missing or damaged"):
        pickle.loads(pickle.dumps(plan)).items(2)


def test_pandas_and_duckdb_read_it(done: Plan) -> None:
    duckdb, pandas = pytest.importorskip("duckdb"), pytest.importorskip("pandas")
    images, proposals = out(done, "images/*.parquet"), out(done, "proposals/*.parquet")
    query = f"""select i.image_id, any_value(i.proposals), count(p.rank), max(p.score), any_value(i.error)
        from '{images}' i left join '{proposals}' p using (image_id) group by 1 order by 1"""
    rows = duckdb.sql(query).fetchall()
    assert [row[0] for row in rows] == list(range(1, COUNT + 1))
    for row in rows:
        number = row[0] - 1
        assert row[1] == row[2] == (0 if number == BROKEN else expected_proposals([number]))
        assert row[4] == ("broken" if number == BROKEN else None)
    frame = pandas.read_parquet(out(done, "proposals"))
    assert len(frame) == expected_proposals(numbers()) and (frame.box_width == 16).all() and (frame.area == 16).all()
    assert pandas.read_parquet(out(done, "errors.parquet")).file_name.tolist() == [f"000/{BROKEN:05d}.png"]
    metadata = parquet.read_schema(out(done, "proposals/chunk-000000.parquet")).metadata
    assert metadata[b"format"] == b"sharpmask proposals 1"


def test_pycocotools_reads_the_converted_results(done: Plan, tmp_path: Path, capsys: Any) -> None:
    from pycocotools.coco import COCO

    assert to_coco(done, tmp_path / "coco") == (10, expected_proposals(numbers()))
    data = COCO(tmp_path / "coco" / "images.json")
    results = data.loadRes(str(tmp_path / "coco" / "proposals.json"))
    assert sorted(data.imgs) == [number + 1 for number in numbers()]
    third = results.loadAnns(results.getAnnIds(imgIds=[4]))
    assert [np.flatnonzero(results.annToMask(entry).all(axis=1)).tolist() for entry in third] == [[3], [5], [7]]
    assert to_coco(done, tmp_path / "best", top=1)[1] == sum(number % 4 > 0 for number in numbers())
    assert to_coco(done, tmp_path / "none", min_score=0.99) == (10, 0)
    with pytest.raises(ConfigError, match="top 0"):
        to_coco(done, tmp_path / "no", top=0)
    with pytest.raises(ConfigError, match="min_score 7"):
        to_coco(done, tmp_path / "no", min_score=7.0)


def test_rows_become_proposals_again() -> None:
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:9, 3:20], masks[1, 5:7, 5:6], masks[2] = True, True, True
    before = Proposals.from_masks(masks, [0.9, 0.5, 0.1])
    after = as_proposals(proposal_table(1, "a", before, proposal_schema()), (20, 30))
    assert np.array_equal(after.masks, before.masks) and np.array_equal(after.boxes, before.boxes)
    assert np.array_equal(after.scores, before.scores) and np.array_equal(after.areas, before.areas)
    assert after.stability is None and after.nms(0.5).rles == before.nms(0.5).rles
    assert len(as_proposals(proposal_table(1, "a", before[:0], proposal_schema()), (20, 30))) == 0


def test_counting_again_finds_nothing_wrong(done: Plan) -> None:
    assert verify(done) == [] and done_chunks(done) == {0, 1, 2}
    total = count(done)
    assert (total.images, total.results, total.errors, total.kinds) == (11, 10, 1, {"image": 1})
    assert total.proposals == expected_proposals(numbers())


def _rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    parquet.write_table(change(parquet.read_table(path)), path)


def _replace(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(values, field.type)).replace_schema_metadata(table.schema.metadata)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images/chunk-000001.parquet", lambda t: t.slice(1), "not the 4 images from 5 on"),
        ("images/chunk-000001.parquet", lambda t: pa.concat_tables([t, t.slice(0, 1)]), "not the 4 images from 5 on"),
        ("images/chunk-000000.parquet", lambda t: _replace(t, "file_name", ["x"] * 4), "other images than the plan"),
        ("images/chunk-000000.parquet", lambda t: _replace(t, "proposals", [1, 1, 2, 2]), "other numbers of proposals"),
        (
            "images/chunk-000001.parquet",
            lambda t: _replace(t, "proposals", [0, 1, 1, 3]),
            "failed image with proposals",
        ),
        ("images/chunk-000000.parquet", lambda t: t.drop_columns(["width"]), "other columns"),
        ("proposals/chunk-000000.parquet", lambda t: t.slice(1), "other numbers of proposals"),
        ("proposals/chunk-000000.parquet", lambda t: _replace(t, "rank", [2] * len(t)), "ranks are not 1, 2"),
        ("errors.parquet", lambda t: t.slice(1), "errors.parquet does not hold"),
    ],
)
def test_counting_again_finds_what_is_wrong(done: Plan, name: str, change: Any, message: str) -> None:
    _rewrite(out(done, name), change)
    problems = verify(done)
    assert len(problems) == 1 and message in problems[0]


def test_missing_damaged_and_strange_files_are_found(done: Plan) -> None:
    out(done, "images/chunk-000000.parquet").unlink()
    out(done, "proposals/chunk-000001.parquet").unlink()
    whole = out(done, "images/chunk-000002.parquet").read_bytes()
    out(done, "images/chunk-000002.parquet").write_bytes(whole[:-9])
    out(done, "proposals/chunk-000077.parquet").touch()
    problems = verify(done)
    assert len(problems) == 4
    for problem, words in zip(
        problems,
        [
            "chunk-000077.parquet belongs to no chunk",
            "images/chunk-000000.parquet is missing: its 4 images",
            "proposals/chunk-000001.parquet is missing; delete images/chunk-000001.parquet",
            "images/chunk-000002.parquet is damaged",
        ],
        strict=True,
    ):
        assert words in problem
    with pytest.raises(DataError, match=r"is damaged|is missing"):
        finish(done)


def test_tables_of_a_chunk(done: Plan) -> None:
    images, proposals = read_images(done.place, 1), read_proposals(done.place, 1)
    assert images.column("image_id").to_pylist() == [5, 6, 7, 8]
    assert images.column("width").to_pylist() == [16, 16, None, 16]
    assert proposals.column("image_id").to_pylist() == [6, 8, 8, 8]
    assert proposals.column("file_name").to_pylist() == ["000/00005.png"] + ["000/00007.png"] * 3
