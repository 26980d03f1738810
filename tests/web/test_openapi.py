"""The API against its own description: what follows the document or breaks it gets an answer the document allows."""

import re
from collections.abc import Callable
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from pycocotools import mask as coco_mask
from schemathesis.checks import CHECKS
from web_fakes import FakeModel, encoded, known_masks

from sharpmask.web.app import create_app

schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(FakeModel(), model="fake", hosts=["testserver"]))
few = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ACCEPTANCE, REJECTION = (CHECKS.get_one(name) for name in ("positive_data_acceptance", "negative_data_rejection"))
OPERATIONS = [(operation.ok().method, operation.ok().path) for operation in schema.get_all_operations()]


def each_operation(name: str, check: Callable[[Any], None], path_regex: str = "") -> dict[str, Any]:
    """A test for each operation, by its name. Schemathesis would give all operations of a parametrized test one name,
    and of tests of one name pytest-xdist runs the first only."""

    def test(method: str, path: str) -> Any:
        def examples(case: Any) -> None:
            check(case)

        return schema.include(method=method, path=path).parametrize()(few(examples))

    chosen = [(method, path) for method, path in OPERATIONS if re.search(path_regex, path)]
    assert chosen
    return {re.sub(r"\W+", "_", f"test_{name}_{method}_{path}"): test(method, path) for method, path in chosen}


def every_operation(case: Any) -> None:
    # No schema can say that bytes are an image or that a code has as many pixels: these are refused, as documented.
    case.call_and_validate(excluded_checks=[ACCEPTANCE])


def pictures_with_any_valid_settings(case: Any) -> None:
    if not case.meta.generation.mode.is_positive:
        return
    if case.media_type == "multipart/form-data":
        case.body = {name: [encoded(), encoded(8, 9)] if name == "files" else encoded() for name in case.body}
    else:
        case.body = encoded()
    answer = case.call_and_validate(excluded_checks=[REJECTION])  # the generated body, now replaced, may have been bad
    assert answer.status_code == 200


def masks_with_any_valid_options(case: Any) -> None:
    if not case.meta.generation.mode.is_positive:
        return
    segmentations = []
    for mask in known_masks(40, 60):
        rle = coco_mask.encode(mask.astype("uint8", order="F"))
        segmentations.append({"size": rle["size"], "counts": rle["counts"].decode()})
    for image in case.body["images"]:
        image |= {"width": 60, "height": 40}
        image["proposals"] = [{"score": 0.5, "segmentation": segmentation} for segmentation in segmentations]
    answer = case.call_and_validate(excluded_checks=[REJECTION])  # the generated body, now replaced, may have been bad
    assert answer.status_code == 200 and len(answer.content) > 0


globals().update(each_operation("every_operation", every_operation))
globals().update(each_operation("pictures", pictures_with_any_valid_settings, "^/v1/(proposals|picture)"))
globals().update(each_operation("masks", masks_with_any_valid_options, "^/v1/export"))
