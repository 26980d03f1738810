"""The Torch7 reader: everything the format has, and one clear error for everything that is damaged."""

import struct
import tracemalloc

import numpy as np
import pytest
from torch7_files import ORACLE, Writer, dump, needs_oracle, oracle_files, tensor

from sharpmask.checkpoints import torch7
from sharpmask.checkpoints.torch7 import read_torch7
from sharpmask.checkpoints.torch7_values import BooleanKey, LuaFunction, LuaTable, Storage, Tensor, TorchObject
from sharpmask.errors import ModelError

DTYPES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2",
    "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "<i1", "Byte": "<u1",
    "Cuda": "<f4", "CudaDouble": "<f8", "CudaHalf": "<f2", "CudaLong": "<i8", "CudaInt": "<i4", "CudaByte": "<u1",
}  # fmt: skip
both = pytest.mark.parametrize("ascii_file", [False, True], ids=["binary", "ascii"])


@needs_oracle
@pytest.mark.parametrize("name", oracle_files())
def test_every_oracle_file_is_read(name):
    root = read_torch7(ORACLE / name)
    model = root["model"]
    assert model.class_name == ("nn.DeepMask" if "deepmask" in name else "nn.SharpMask")
    assert model.get("trunk").class_name == "nn.Sequential"
    assert len(model.get("trunk").get("modules").sequence()) == 12
    assert isinstance(root["config"], LuaTable)
    assert root["config"]["iSz"] == 64.0 and root["config"]["scratch"] is False


@needs_oracle
@pytest.mark.parametrize("name", oracle_files("*/sharpmask.t7"))
def test_oracle_identities(name):
    model = read_torch7(ORACLE / name)["model"]
    refs, neths = model.get("refs"), model.get("neths")
    assert 0 in refs and 0 in model.get("netvs")
    for level in range(1, 5):
        parallel = refs[level].get("modules")[1]
        assert parallel.get("modules")[1] is neths[level]
    linear = model.get("trunk").get("modules")[12]
    convolution = model.get("trunk").get("modules")[9]
    assert linear.get("weight").array().shape == (32, 128)
    assert isinstance(linear.get("weight").storage, Storage)
    if linear.get("weight").storage is convolution.get("weight").storage:  # one flat storage per branch
        assert np.shares_memory(linear.get("weight").storage.data, convolution.get("weight").array())
    assert not linear.get("weight").array().flags.writeable


@needs_oracle
def test_oracle_functions_are_skipped():
    linear = read_torch7(ORACLE / "legacy" / "deepmask.t7")["model"].get("trunk").get("modules")[12]
    assert isinstance(linear.get("accUpdateGradParameters"), LuaFunction)


@needs_oracle
def test_oracle_written_as_ascii_reads_the_same():
    def compare(left, right, seen):
        assert type(left) is type(right)
        if id(left) in seen:
            assert seen[id(left)] is right
        elif isinstance(left, LuaTable):
            seen[id(left)] = right
            assert list(left.items) == list(right.items)
            for key in left.items:
                compare(left[key], right[key], seen)
        elif isinstance(left, TorchObject):
            seen[id(left)] = right
            assert left.class_name == right.class_name
            compare(left.fields, right.fields, seen)
        elif isinstance(left, Tensor):
            seen[id(left)] = right
            assert (left.size, left.stride, left.offset) == (right.size, right.stride, right.offset)
            compare(left.storage, right.storage, seen)
        elif isinstance(left, Storage):
            seen[id(left)] = right
            np.testing.assert_array_equal(left.data, right.data)
        elif isinstance(left, LuaFunction):
            seen[id(left)] = right
        else:
            assert left == right

    binary = read_torch7(ORACLE / "legacy" / "deepmask.t7")
    compare(binary, read_torch7(dump(binary, ascii_file=True)), {})


def test_ascii_file_by_hand():
    text = (
        b"3\n1\n3\n"  # a table of three entries
        b"2\n4\nname\n2\n9\ntwo\nlines\n"
        b"2\n1\nw\n4\n2\n3\nV 1\n17\ntorch.FloatTensor\n2\n2 2\n1 2\n3\n"  # size 2x2, stride 1x2, offset 3
        b"4\n3\n3\nV 1\n18\ntorch.FloatStorage\n6\n0 1 2.5 -3e-2 nan -inf\n"
        b"1\n0.1\n5\n1\n"
    )
    root = read_torch7(text)
    assert root["name"] == "two\nlines"
    assert root[0.1] is True
    np.testing.assert_array_equal(root["w"].array(), np.array([[2.5, np.nan], [-3e-2, -np.inf]], np.float32))
    assert read_torch7(text + b"\n\n")["name"] == "two\nlines"


@both
def test_plain_values(ascii_file):
    key = LuaTable({"a": 1.0})
    value = {
        1: None, 2: True, 3: False, 4: -1.5, 5: "", 6: "żółw", 7: "a\nb ", 2.5: "half", -3: "minus", 0: "zero",
        "k": float("inf"), BooleanKey.TRUE: "yes", BooleanKey.FALSE: "no", key: "by table",
    }  # fmt: skip
    root = read_torch7(dump(value, ascii_file=ascii_file))
    assert 1 not in root and root[2] is True and root[3] is False and root[4] == -1.5
    assert (root[5], root[6], root[7], root[2.5], root[-3], root[0]) == ("", "żółw", "a\nb ", "half", "minus", "zero")
    assert root["k"] == float("inf") and root[BooleanKey.TRUE] == "yes" and root[BooleanKey.FALSE] == "no"
    (table,) = [entry for entry in root.items if isinstance(entry, LuaTable)]
    assert table["a"] == 1.0 and root[table] == "by table"
    assert root.sequence() == []
    assert read_torch7(dump("only a string", ascii_file=ascii_file)) == "only a string"
    assert read_torch7(dump(None, ascii_file=ascii_file)) is None


@both
@pytest.mark.parametrize("kind", DTYPES)
def test_every_element_type(kind, ascii_file):
    values = np.array([[1, 2, 3], [10, 49, 100]], DTYPES[kind])
    read = read_torch7(dump(tensor(values, kind), ascii_file=ascii_file))
    assert read.class_name == f"torch.{kind}Tensor"
    assert read.array().dtype == values.dtype
    np.testing.assert_array_equal(read.array(), values)


@both
def test_views_share_one_storage(ascii_file):
    storage = Storage("torch.FloatStorage", np.arange(12, dtype=np.float32))
    whole = Tensor("torch.FloatTensor", (3, 4), (4, 1), 0, storage)
    column = Tensor("torch.FloatTensor", (3,), (4,), 2, storage)
    unused = Tensor("torch.FloatTensor", (), (), 0, storage)
    root = read_torch7(
        dump({"whole": whole, "column": column, "unused": unused, "again": whole}, ascii_file=ascii_file)
    )
    assert root["whole"] is root["again"]
    assert root["whole"].storage is root["column"].storage is root["unused"].storage
    np.testing.assert_array_equal(root["column"].array(), [2, 6, 10])
    assert np.shares_memory(root["whole"].array(), root["column"].array())
    assert root["unused"].array().shape == (0,) and root["unused"].numel == 0
    assert read_torch7(dump(Tensor("torch.FloatTensor", (), (), 0, None), ascii_file=ascii_file)).array().size == 0


@both
def test_cyclic_tables(ascii_file):
    table, module = LuaTable(), TorchObject("nn.Thing", 1)
    table.items.update({1: table, "module": module})
    module.fields.items.update({"owner": table, "self": module})
    root = read_torch7(dump(table, ascii_file=ascii_file))
    assert root[1] is root
    assert root["module"].get("owner") is root and root["module"].get("self") is root["module"]


@both
def test_unversioned_classes(ascii_file):
    module = TorchObject("nn.Linear", 1, LuaTable({"weight": tensor(np.ones((2, 2), np.float32))}))
    read = read_torch7(dump(module, ascii_file=ascii_file, versioned=False))
    assert (read.class_name, read.version) == ("nn.Linear", 0)
    np.testing.assert_array_equal(read.get("weight").array(), np.ones((2, 2)))


@both
@pytest.mark.parametrize("kind", [6, 7, 8])
def test_functions_are_skipped_but_counted(kind, ascii_file):
    writer = Writer(ascii_file=ascii_file)
    code = b"\x1bLua code 3\n1\n"
    writer.ints(3), writer.ints(1), writer.ints(4)
    for key in (1, 2):  # the second time only its index is written (the oldest kind has none)
        writer.write(key)
        writer.ints(kind)
        if kind != 6:
            writer.ints(2)
        if kind == 6 or key == 1:
            writer.characters(code)
            writer.known |= {-1: 1, -2: 2}  # so that the up-values' table gets a fresh index
            writer.write({1: {"name": "x", "value": "up"}} if kind == 8 else {1: "up"})
    writer.write(3).write("after")
    writer.write(4).write(tensor(np.arange(3, dtype=np.float32)))
    root = read_torch7(bytes(writer.out))
    assert isinstance(root[1], LuaFunction) and root[1].code_bytes == len(code)
    assert (root[1] is root[2]) == (kind != 6)
    assert root[3] == "after"
    np.testing.assert_array_equal(root[4].array(), [0, 1, 2])


def test_longs_of_four_bytes():
    root = {
        "t": tensor(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "s": Storage("torch.LongStorage", np.array([4, -5])),
    }
    data = dump(root, long_size=4)
    np.testing.assert_array_equal(read_torch7(data, long_size=4)["t"].array(), root["t"].array())
    np.testing.assert_array_equal(read_torch7(data, long_size=4)["s"].data, [4, -5])
    with pytest.raises(ModelError):
        read_torch7(data)
    with pytest.raises(ValueError, match="long_size"):
        read_torch7(data, long_size=2)


def test_long_ascii_storage_in_pieces():
    values = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
    read = read_torch7(dump({1: tensor(values), 2: "end"}, ascii_file=True))
    np.testing.assert_array_equal(read[1].array(), values)
    assert read[2] == "end"


def _sample() -> dict:
    module = TorchObject(
        "nn.Linear", 1, LuaTable({"weight": tensor(np.arange(6, dtype=np.float32).reshape(2, 3)), "train": True})
    )
    return {
        "model": module,
        "f": LuaFunction(0),
        "name": "abcdef",
        "again": module,
        "bytes": tensor(np.arange(9, dtype="u1"), "Byte"),
    }


@both
def test_every_truncation_is_one_error(ascii_file):
    data = dump(_sample(), ascii_file=ascii_file)
    read_torch7(data)
    for length in range(len(data)):
        with pytest.raises(ModelError):
            read_torch7(data[:length])


@both
def test_left_over_bytes_are_refused(ascii_file):
    with pytest.raises(ModelError, match="left over"):
        read_torch7(dump(_sample(), ascii_file=ascii_file) + b"1\n")


def test_deep_nesting_is_refused():
    table = LuaTable()
    for _ in range(torch7.MAX_DEPTH - 1):
        table = LuaTable({1: table})
    read_torch7(dump(table))
    for _ in range(3):
        table = LuaTable({1: table})
    with pytest.raises(ModelError, match="nested"):
        read_torch7(dump(table))
    deep = b"".join(struct.pack("<iiiid", 3, index, 1, 1, 1.0) for index in range(1, 200_000))
    with pytest.raises(ModelError, match="nested"):
        read_torch7(deep)


def test_too_many_objects_are_refused(monkeypatch):
    monkeypatch.setattr(torch7, "MAX_OBJECTS", 10)
    with pytest.raises(ModelError, match="more than 10 objects"):
        read_torch7(dump({number: float(number) for number in range(10)}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<ii", 2, 1 << 30), "a string needs"),
        (struct.pack("<ii", 2, -5), "negative"),
        (struct.pack("<iii", 3, 1, 1 << 30), "a table of"),
        (struct.pack("<iii", 3, 1, -1), "negative"),
        (struct.pack("<iii", 3, 1, 1) + dump(None) + dump(1), "table key"),
        (struct.pack("<iii", 3, 1, 1) + dump(float("nan")) + dump(1), "table key"),
        (struct.pack("<iii", 8, 1, 1 << 20), "code of a function"),
        (struct.pack("<iii", 4, 1, 1 << 20), "class name"),
        (struct.pack("<iii", 4, 1, 3) + b"V 1" + struct.pack("<i", 4) + b"n\0.x", "impossible class name"),
        (struct.pack("<ii", 9, 1), "not a Torch7 file"),
        (struct.pack("<iii", 3, 1, 1) + dump(1) + struct.pack("<i", 77) + bytes(16), "unknown object type 77"),
        (b"PK\x03\x04 a zip file", "not a Torch7 file"),
        (b"", "empty"),
        (b"3\n1\n99999\n", "a table of"),
        (b"2\n-4\nabcd\n", "negative"),
        (b"1\nx1\n", "number expected"),
        (b"1\n", "missing"),
        (b"1\n1.5", "line feed"),
        (b"3\nq\n", "integer expected"),
        (dump(TorchObject("tds.Hash", 1)), "tds.Hash"),
        (dump(TorchObject("torch.Generator", 1)), "torch.Generator"),
        (struct.pack("<iii", 4, 1, 3) + b"V 1" + struct.pack("<i", 9) + b"nn.Linear" + dump(1.0), "nn.Linear"),
    ],
)
def test_damage_has_a_message(data, message):
    with pytest.raises(ModelError, match=message):
        read_torch7(data)


@both
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((7,), (1,), 0), ((3, 3), (3, 1), 0), ((6,), (1,), 1), ((2, 3), (4, 1), 0), ((6,), (1,), -1), ((2,), (-1,), 3),
        ((-1,), (1,), 0), ((0, 3), (3, 1), 0), ((1 << 62, 1 << 62), (1, 1), 0), ((2,), ((1 << 63) - 1,), 0),
        ((1,), (1,), 1 << 62),
    ],
)  # fmt: skip
def test_views_outside_their_storage_are_refused(size, stride, offset, ascii_file):
    storage = Storage("torch.FloatStorage", np.zeros(6, np.float32))
    with pytest.raises(ModelError):
        read_torch7(dump(Tensor("torch.FloatTensor", size, stride, offset, storage), ascii_file=ascii_file))


def test_stride_of_a_single_element_does_not_matter():
    storage = Storage("torch.FloatStorage", np.arange(6, dtype=np.float32))
    read = read_torch7(dump(Tensor("torch.FloatTensor", (1, 2), ((1 << 63) - 1, 3), 1, storage)))
    np.testing.assert_array_equal(read.array(), [[1, 4]])


def test_repeated_elements_are_not_handed_out():
    storage = Storage("torch.FloatStorage", np.zeros(6, np.float32))
    read = read_torch7(dump(Tensor("torch.FloatTensor", (1 << 40,), (0,), 0, storage)))
    with pytest.raises(ModelError, match="repeats"):
        read.array()


def test_storage_of_another_type_is_refused():
    storage = Storage("torch.DoubleStorage", np.zeros(6))
    for other in (storage, LuaTable(), None):
        with pytest.raises(ModelError, match="whose storage is"):
            read_torch7(dump(Tensor("torch.FloatTensor", (2,), (1,), 0, other)))


def test_storage_larger_than_the_file_is_refused_before_it_is_made():
    head = dump(Storage("torch.DoubleStorage", np.zeros(0)))[:-8]
    for size in (1 << 40, 1 << 62, -1):
        with pytest.raises(ModelError):
            read_torch7(head + struct.pack("<q", size))


def test_memory_of_a_file_of_nothing_but_small_objects():
    """Python's objects are larger than their bytes in the file; MAX_OBJECTS limits what that can add up to."""
    count = 20_000
    entries = (struct.pack("<id", 1, i) + struct.pack("<iii", 3, i + 2, 0) for i in range(count))
    data = struct.pack("<iii", 3, 1, count) + b"".join(entries)
    tracemalloc.start()
    try:
        assert len(read_torch7(data)) == count
        assert tracemalloc.get_traced_memory()[1] < 16 * len(data)
    finally:
        tracemalloc.stop()


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.t7"):
        read_torch7(tmp_path / "nothing.t7")
    with pytest.raises(ModelError, match="cannot be read"):
        read_torch7(tmp_path)
