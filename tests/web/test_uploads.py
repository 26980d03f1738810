"""Names that clients give."""

import pytest

from sharpmask.web.uploads import file_stem, safe_name


@pytest.mark.parametrize(
    ("name", "safe", "stem"),
    [
        ("photo.jpg", "photo.jpg", "photo"),
        ("/etc/passwd", "passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini", "boot"),
        ("C:\\photos\\Zoë.jpeg", "Zoë.jpeg", "Zoë"),
        ("a\r\nSet-Cookie: x.png", "aSet-Cookie: x.png", "aSet-Cookie_ x"),
        ("..", "image", "image"),
        (".", "image", "image"),
        ("", "image", "image"),
        (None, "image", "image"),
        ("photos/", "image", "image"),
        (".hidden", ".hidden", "hidden"),
        ("a\u202egpj.exe", "agpj.exe", "agpj"),  # a character that turns the reading direction
        ("<script>.png", "<script>.png", "_script_"),
        ("x" * 300 + ".png", "x" * 120, "x" * 50),
    ],
)
def test_names(name: str | None, safe: str, stem: str) -> None:
    assert safe_name(name) == safe
    assert file_stem(safe) == stem
