from collections.abc import Callable
from pathlib import Path

import pytest
from coco_folders import Folder

from sharpmask.data.coco import CocoDataset, read_coco


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(scope="session")
def coco_mini() -> Callable[[str], tuple[CocoDataset, Path]]:
    """Real photos, where a checkout has them beside it: split name -> dataset, image folder."""
    root = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "coco-mini"

    def load(split: str) -> tuple[CocoDataset, Path]:
        if not (root / f"instances_{split}.json").is_file():
            pytest.skip("the photos of coco-mini are not beside this checkout")
        return read_coco(root / f"instances_{split}.json"), root / split

    return load
