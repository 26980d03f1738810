"""What a client may ask of the server, in one place."""

from dataclasses import dataclass, fields

from sharpmask.errors import ConfigError

MAX_TOP = 1000  # windows decoded for an image
MAX_MASKS = 2000  # of an image to be exported
# Runs of one mask to be exported. A mask of a 50-megapixel photo has some ten thousand; a chessboard, whose outline
# would take minutes, has a run for every other pixel.
MAX_RUNS = 50_000


@dataclass(frozen=True)
class Limits:
    """Attributes:
        max_body: bytes of a request's body, all files together.
        max_pixels: of an image; larger ones are refused before they are decoded.
        timeout: seconds for an image, waiting included; also for sending a request.
        queue: images that may wait while one is worked on; further requests get status 429.
        max_files: files of a batch, and images of an export.

    Raises:
        ConfigError: a value that is not greater than 0.
    """

    max_body: int = 64 * 2**20
    max_pixels: int = 50_000_000
    timeout: float = 120.0
    queue: int = 8
    max_files: int = 32

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{field.name} {value:g}: must be greater than 0")
