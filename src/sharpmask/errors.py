"""The errors a user can cause. Each message names the file or value at fault and what to do about it."""


class SharpMaskError(Exception):
    """Base of all errors this package raises on purpose; the command line prints its text and exits with `status`."""

    status = 1


class ConfigError(SharpMaskError):
    """An option, configuration value or model name that cannot be used."""

    status = 2


class ImageError(SharpMaskError):
    """An image file or array that cannot be read or is outside the accepted limits."""


class DataError(SharpMaskError):
    """Annotations or proposals that cannot be read, or that cannot be trained or measured on."""


class ModelError(SharpMaskError):
    """A weights file that is missing, damaged or of another kind than expected."""


class MissingExtraError(SharpMaskError):
    """An optional dependency is not installed."""

    status = 2

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed: run  pip install 'sharpmask[{extra}]'"
        )
