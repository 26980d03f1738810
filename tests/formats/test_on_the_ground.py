"""Masks of pictures that lie on the ground: read back by GDAL, GEOS and rasterio, pixel by pixel."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpmask.errors import ConfigError, SharpMaskError
from sharpmask.files import atomic_write
from sharpmask.formats import FormatOptions, open_formats
from sharpmask.formats.placing import Placing
from sharpmask.proposals.folder import Photo
from sharpmask.proposals.ground import Ground
from sharpmask.proposals.result import Proposals

rasterio = pytest.importorskip("rasterio")
pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")

from rasterio import features, warp  # noqa: E402
from rasterio.crs import CRS  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

UTM = CRS.from_epsg(25832)
PLAIN = Affine(0.25, 0, 691000.3, 0, -0.25, 5334000.7)
TRANSFORMS = {
    "north up": PLAIN,
    "rotated": Affine(0.4193, 0.1362, 691000.3, 0.2723, -0.2097, 5334000.7),  # by 33 degrees
    "mirrored": Affine(-30, 4, 691000.3, 2, 25, 5334000.7),
}

Save = Callable[..., Path]


@pytest.fixture(params=TRANSFORMS.values(), ids=TRANSFORMS.keys())
def transform(request: pytest.FixtureRequest) -> Affine:
    return request.param


@pytest.fixture
def save_placed(tmp_path: Path, photo: Photo, proposals: Proposals) -> Save:
    """Write the known masks for a photo that lies on the ground; gives the file."""

    def run(kind: str, transform: Affine, crs: CRS | None = UTM, **options: Any) -> Path:
        ground = Ground(tuple(transform)[:6], crs.to_wkt() if crs else None)
        (tmp_path / "out").mkdir(exist_ok=True)
        with open_formats([kind], tmp_path / "out", FormatOptions(**options)) as write:
            write(replace(photo, ground=ground), proposals)
        return next((tmp_path / "out" / kind).iterdir())

    return run


def burnt(shape: Any, transform: Affine, size: tuple[int, int]) -> np.ndarray:
    return features.rasterize([shape], out_shape=size, transform=transform).astype(bool)


@pytest.mark.parametrize("kind", ["geojson", "geopackage"])
def test_every_pixel_comes_back_from_its_place(
    save_placed: Save, masks: np.ndarray, proposals: Proposals, transform: Affine, kind: str
) -> None:
    path = save_placed(kind, transform, label="thing")
    meta, _, geometry, columns = pyogrio.raw.read(path)
    assert CRS.from_user_input(meta["crs"]) == UTM
    table = dict(zip(meta["fields"], columns, strict=True))
    assert table["rank"].tolist() == list(range(1, len(masks) + 1)) and set(table["label"]) == {"thing"}
    np.testing.assert_allclose(table["score"], proposals.scores, rtol=1e-6)
    assert table["area"].tolist() == masks.sum(axis=(1, 2)).tolist()
    shapes = shapely.from_wkb(geometry)
    np.testing.assert_allclose(table["area_m2"], shapely.area(shapes), rtol=1e-3)
    for shape, mask in zip(shapes, masks, strict=True):
        assert shape.is_valid
        np.testing.assert_array_equal(burnt(shape, transform, mask.shape), mask)


def test_rings_turn_as_the_standard_says(save_placed: Save, transform: Affine) -> None:
    content = json.loads(save_placed("geojson", transform).read_text())
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::25832"
    for feature in content["features"]:
        polygons = feature["geometry"]["coordinates"]
        for rings in [polygons] if feature["geometry"]["type"] == "Polygon" else polygons:
            assert [shapely.LinearRing(ring).is_ccw for ring in rings] == [True] + [False] * (len(rings) - 1)
            assert all(ring[0] == ring[-1] for ring in rings)


@pytest.mark.parametrize("kind", ["geojson", "geopackage"])
def test_longitude_and_latitude(save_placed: Save, masks: np.ndarray, transform: Affine, kind: str) -> None:
    path = save_placed(kind, transform, coordinates="wgs84")
    meta, _, geometry, _ = pyogrio.raw.read(path)
    assert CRS.from_user_input(meta["crs"]).to_epsg() == 4326 or "CRS84" in meta["crs"]
    for shape, mask in zip(shapely.from_wkb(geometry), masks, strict=True):
        assert 10 < shape.centroid.x < 13 and 47 < shape.centroid.y < 49  # near Munich
        back = shapely.geometry.shape(warp.transform_geom("OGC:CRS84", UTM, shapely.geometry.mapping(shape)))
        np.testing.assert_array_equal(burnt(back, transform, mask.shape), mask)
    if kind == "geojson":
        assert "crs" not in json.loads(path.read_text())


def test_long_edges_are_bent_in_longitude_and_latitude() -> None:
    """A square of 300 km: the middle of its edge is found, and not only its ends."""
    ground = Ground((100.0, 0, 300000, 0, -100, 5800000), UTM.to_wkt())
    ring = np.array([[0.0, 0], [3000, 0], [3000, 3000], [0, 3000], [0, 0]])
    (placed,) = Placing(ground, wgs84=True)._place(ring)[None]
    middle = ground.to_wgs84(np.array([[1500.0, 0]]))[0]
    assert shapely.LineString(placed).distance(shapely.Point(middle)) < 1e-5  # a metre
    assert shapely.LineString(ground.to_wgs84(ring)).distance(shapely.Point(middle)) > 1e-3


def test_a_system_without_a_code(save_placed: Save, masks: np.ndarray) -> None:
    own = CRS.from_proj4("+proj=laea +lat_0=47 +lon_0=9.5 +x_0=10 +y_0=20 +ellps=bessel +units=us-ft")
    for kind in ("geojson", "geopackage"):
        info = pyogrio.read_info(save_placed(kind, PLAIN, own))
        assert CRS.from_user_input(info["crs"]) == own
    content = json.loads(save_placed("geojson", PLAIN, own).read_text())
    foot = 1200 / 3937
    assert content["features"][0]["properties"]["area_m2"] == pytest.approx(
        masks[0].sum() * (0.25 * foot) ** 2, rel=1e-3
    )


def test_a_geographic_system(save_placed: Save, masks: np.ndarray) -> None:
    """A pixel of a thousandth of a degree at 48 degrees north: 111.2 m by 74.6 m on the ellipsoid."""
    degrees = CRS.from_epsg(4326)
    path = save_placed("geojson", Affine(1e-3, 0, 11, 0, -1e-3, 48), degrees)
    content = json.loads(path.read_text())
    assert "crs" not in content  # what GeoJSON means anyway
    _, _, geometry, _ = pyogrio.raw.read(path)
    for shape, feature, mask in zip(shapely.from_wkb(geometry), content["features"], masks, strict=True):
        np.testing.assert_array_equal(burnt(shape, Affine(1e-3, 0, 11, 0, -1e-3, 48), mask.shape), mask)
        assert feature["properties"]["area_m2"] == pytest.approx(mask.sum() * 111.2 * 74.6, rel=3e-3)


def test_a_transform_without_a_system(save_placed: Save, masks: np.ndarray) -> None:
    content = json.loads(save_placed("geojson", PLAIN, None).read_text())
    assert "crs" not in content and "names no system" in content["coordinates"]
    assert "area_m2" not in content["features"][0]["properties"]
    meta, _, geometry, columns = pyogrio.raw.read(save_placed("geopackage", PLAIN, None))
    assert meta["crs"] is None and np.isnan(columns[-1]).all()
    shape = shapely.from_wkb(geometry)[0]
    np.testing.assert_array_equal(burnt(shape, PLAIN, masks[0].shape), masks[0])


@pytest.mark.parametrize("kind", ["geojson", "geopackage"])
def test_pixels_on_demand(save_placed: Save, masks: np.ndarray, kind: str) -> None:
    _, _, geometry, _ = pyogrio.raw.read(save_placed(kind, PLAIN, coordinates="pixels"))
    for shape, mask in zip(shapely.from_wkb(geometry), masks, strict=True):
        np.testing.assert_array_equal(burnt(shape, Affine.identity(), mask.shape), mask)


def test_photos_without_ground_and_without_masks(save: Save, masks: np.ndarray) -> None:
    folder = save("geopackage") / "geopackage"
    shapes = shapely.from_wkb(pyogrio.raw.read(folder / 'Zoë & "Co".gpkg')[2])
    np.testing.assert_array_equal(burnt(shapes[1], Affine.identity(), masks[1].shape), masks[1])
    info = pyogrio.read_info(folder / "empty.gpkg")
    assert info["features"] == 0 and info["layer_name"] == "proposals" and info["geometry_type"] == "MultiPolygon"


def test_many_features(tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpmask.formats.geopackage._ROWS", 7)
    masks = np.zeros((23, 10, 60), bool)
    for index in range(23):
        masks[index, 3, 2 * index : 2 * index + 2] = True
    with open_formats(["geopackage"], tmp_path) as write:
        write(photo, Proposals.from_masks(masks))
    _, _, geometry, columns = pyogrio.raw.read(tmp_path / "geopackage" / f"{photo.name}.gpkg")
    assert columns[1].tolist() == list(range(1, 24))
    assert shapely.bounds(shapely.from_wkb(geometry))[:, 0].tolist() == list(range(0, 46, 2))


def test_a_geopackage_is_written_whole_or_not_at_all(
    tmp_path: Path, photo: Photo, proposals: Proposals, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyogrio.raw as raw

    def full(*_: Any, **__: Any) -> None:
        raise pyogrio.errors.DataSourceError("sqlite3_exec failed: database or disk is full")

    monkeypatch.setattr(raw, "write", full)
    with pytest.raises(SharpMaskError, match="disk is full"), open_formats(["geopackage"], tmp_path) as write:
        write(photo, proposals)
    assert list((tmp_path / "geopackage").iterdir()) == []


@pytest.mark.parametrize("kind", ["geopackage", "geojson"])
def test_a_full_disk(tmp_path: Path, photo: Photo, files_of_at_most: Any, kind: str) -> None:
    large = Proposals.from_masks(np.random.default_rng(0).random((40, 60, 60)) < 0.5)
    with (
        files_of_at_most(50_000),
        pytest.raises(SharpMaskError, match="cannot write"),
        open_formats([kind], tmp_path) as write,
    ):
        write(photo, large)
    assert list((tmp_path / kind).iterdir()) == []


def test_bad_coordinates() -> None:
    with pytest.raises(ConfigError, match="coordinates"):
        FormatOptions(coordinates="mars")


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(SharpMaskError, match=r"sharpmask\[geo\]"), open_formats(["geopackage"], tmp_path):
        pass
    with atomic_write(tmp_path / "still.json") as temporary:  # the folder is fine
        temporary.write_text("{}")
