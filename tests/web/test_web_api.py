"""The endpoints: what comes out, and what every wrong request is told."""

import io
import re

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pycocotools import mask as coco_mask
from web_fakes import BOXES, FakeModel, encoded, known_masks


def test_masks_of_a_file_in_a_form(client: TestClient) -> None:
    answer = client.post("/v1/proposals", files={"file": ("C:\\photos\\my cat.png", encoded(60, 40))})
    assert answer.status_code == 200
    found = answer.json()
    assert found["image"] == {"file_name": "my cat.png", "width": 60, "height": 40}
    assert [entry["score"] for entry in found["proposals"]] == [score for _, score in BOXES]
    for entry, truth in zip(found["proposals"], known_masks(40, 60), strict=True):
        mask = coco_mask.decode(entry["segmentation"]).astype(bool)
        assert np.array_equal(mask, truth) and entry["area"] == truth.sum()
        rows, cols = np.nonzero(truth)
        x, y, width, height = entry["bbox"]
        assert (x, y, x + width, y + height) == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("kind", ["image/png", "image/x-unheard-of", "application/octet-stream; charset=binary"])
def test_masks_of_raw_bytes(client: TestClient, kind: str) -> None:
    answer = client.post("/v1/proposals", content=encoded(), headers={"content-type": kind})
    assert answer.status_code == 200
    assert len(answer.json()["proposals"]) == len(BOXES)


def test_settings_reach_the_model(client: TestClient, model: FakeModel) -> None:
    settings = "top=7&zoom=2&threshold=0.3&ranking=soft&nms=0.8&min_score=0.5&fit=0"
    answer = client.post(f"/v1/proposals?{settings}", files={"file": encoded()})
    shape, seen = model.seen[0]
    assert shape == (40, 60, 3)
    expected = {"top": 7, "zoom": 2, "threshold": 0.3, "ranking": "soft", "nms": 0.8, "min_score": 0.5, "fit": 0}
    assert seen.model_dump() == expected
    assert [entry["score"] for entry in answer.json()["proposals"]] == [0.99, 0.9, 0.7]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("top=0", "top: "),
        ("top=1001", "top: "),
        ("top=many", "top: "),
        ("zoom=3", "zoom: "),
        ("threshold=1", "threshold: "),
        ("threshold=nan", "threshold: "),
        ("nms=1.5", "nms: "),
        ("min_score=-1", "min_score: "),
        ("tops=5", "tops: "),
        ("path=/etc/passwd", "path: "),
    ],
)
def test_wrong_settings_are_named(client: TestClient, query: str, says: str) -> None:
    answer = client.post(f"/v1/proposals?{query}", files={"file": encoded()})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(says)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_image_formats(client: TestClient, kind: str) -> None:
    assert client.post("/v1/proposals", files={"file": encoded(kind=kind)}).status_code == 200


def test_exif_orientation_is_applied(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    answer = client.post("/v1/proposals", files={"file": encoded(60, 40, "JPEG", exif=exif)})
    assert answer.json()["image"] == {"file_name": "upload", "width": 40, "height": 60}


def _eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"GIF: not really", 415, "photo.png: not an image of a known format"),
        (b"%PDF-1.7", 415, "not an image"),
        (_eps(), 415, "not an image"),  # Pillow would run Ghostscript
        (b"", 415, "not an image"),
        (encoded()[:300], 422, "photo.png: "),
        (encoded(kind="JPEG")[:400], 422, "photo.png: "),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 415, "not an image"),
    ],
)
def test_what_is_no_image(client: TestClient, content: bytes, status: int, says: str) -> None:
    answer = client.post("/v1/proposals", files={"file": ("photo.png", content)})
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text


def test_wrong_bodies(client: TestClient) -> None:
    def post(path: str = "/v1/proposals", **request: object) -> tuple[int, str]:
        answer = client.post(path, **request)  # type: ignore[arg-type]
        return answer.status_code, answer.json()["detail"]

    picture = encoded()
    assert post(json={"url": "http://example.com/a.jpg"})[0] == 415
    assert post(data={"file": "/etc/passwd"})[0] == 415  # a form without files is url-encoded
    assert post(content=b"", headers={"content-type": "image/png"}) == (
        422,
        "the request has no body: send the bytes of an image",
    )
    assert post(files={"picture": picture}) == (422, "the field 'picture': only files in the field 'file' are read")
    assert post(files={"file": picture}, data={"top": "5"})[0] == 422
    assert post(files={"file": (None, "/etc/passwd")})[0] == 422  # text, not a file
    assert post(files=[("file", picture), ("file", picture)]) == (413, "more than 1 file in one request")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert post(content=b"--y\r\nnothing", headers=headers)[0] in (400, 422)
    assert post(content=b"--x\r\n\xff\xff", headers=headers)[0] == 400
    assert post(content=b"x", headers={"content-type": "multipart/form-data"})[0] == 400
    assert post("/v1/proposals/batch", content=picture, headers={"content-type": "image/png"})[0] == 415
    assert post("/v1/proposals/batch", files={"file": picture})[0] == 422


def test_batch_has_results_and_errors_file_by_file(client: TestClient) -> None:
    files = [
        ("files", ("one.png", encoded(30, 20))),
        ("files", ("two.png", b"no picture")),
        ("files", ("three.jpg", encoded(50, 40, "JPEG")[:500])),
        ("files", ("one.png", encoded(70, 60))),
    ]
    answer = client.post("/v1/proposals/batch?top=2", files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result.get("status", 200) for result in results] == [200, 415, 422, 200]
    assert [len(result["proposals"]) for result in (results[0], results[3])] == [2, 2]
    assert (results[0]["image"]["width"], results[3]["image"]["width"]) == (30, 70)
    assert results[1]["file_name"] == "two.png" and "two.png: not an image" in results[1]["detail"]
    assert results[2]["detail"].startswith("three.jpg: ")


def test_an_error_of_the_model_is_no_secret_and_no_end(client: TestClient, model: FakeModel) -> None:
    model.seen = None  # type: ignore[assignment]
    answer = client.post("/v1/proposals", files={"file": encoded()})
    assert (answer.status_code, answer.json()) == (500, {"detail": "an error within the server; its log tells more"})
    model.seen = []
    assert client.post("/v1/proposals", files={"file": encoded()}).status_code == 200


def test_picture_for_browsers(client: TestClient) -> None:
    deep = np.full((30, 50), 257 * 100, np.uint16)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "TIFF")
    answer = client.post("/v1/picture", files={"file": file.getvalue()})
    assert answer.headers["content-type"] == "image/jpeg"
    picture = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert picture.shape == (30, 50, 3) and abs(picture.astype(int) - 100).max() <= 2
    large = client.post("/v1/picture", content=encoded(5000, 20), headers={"content-type": "image/png"})
    assert Image.open(io.BytesIO(large.content)).size == (4096, 16)
    assert client.post("/v1/picture", files={"file": b"nothing"}).status_code == 415


def test_info_and_health(client: TestClient) -> None:
    info = client.get("/v1/info").json()
    assert info["model"] == "fake" and info["local"] is True and "cvat" in info["formats"]
    assert client.get("/healthz").json() == {"status": "ok", "waiting": 0, "running": False}


def test_metrics_count_requests_images_and_masks(client: TestClient) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    client.post("/v1/proposals", files={"file": encoded()})
    client.post("/v1/proposals", files={"file": b"none"})
    client.get("/no/such/thing")
    client.get("/", headers={"host": "evil.example"})
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            samples[sample.name, *sorted(sample.labels.values())] = sample.value
    assert samples["sharpmask_requests_total", "/v1/proposals", "200", "POST"] == 1
    assert samples["sharpmask_requests_total", "/v1/proposals", "415", "POST"] == 1
    assert samples["sharpmask_requests_total", "404", "GET", "other"] == 1
    assert samples["sharpmask_requests_total", "400", "GET", "other"] == 1
    assert samples["sharpmask_request_seconds_count", "/v1/proposals"] == 2
    assert samples[("sharpmask_images_total", "done")] == samples[("sharpmask_images_total", "failed")] == 1
    assert samples[("sharpmask_masks_total",)] == len(BOXES)
    assert samples[("sharpmask_image_seconds_count",)] == 1
    assert samples[("sharpmask_queue_depth",)] == samples[("sharpmask_working",)] == 0


def test_pages_and_unknown_addresses(client: TestClient) -> None:
    for path in ("/", "/docs", "/openapi.json", "/static/main.js"):
        assert client.get(path).status_code == 200
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/none.js", "/redoc"):
        assert client.get(path).status_code == 404
    assert client.get("/v1/proposals").status_code == 405
    assert client.get("/v1/none").json() == {"detail": "Not Found"}


def test_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    """The browser test sees the requests that are made; this sees those that might be."""
    from sharpmask.web.app import STATIC

    for path in STATIC.iterdir():
        addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text(encoding="utf-8"))
        assert [address for address in addresses if address != "http://www.w3.org"] == [], path.name
        assert not re.search(r"<script(?![^>]* src=)|\son\w+=|style=", path.read_text(encoding="utf-8")), path.name
