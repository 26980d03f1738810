"""Proposals for very many images: a source cut into chunks once, each chunk done and written exactly once.

`run.propose_bulk` does it all. A run lives in its destination: a plan (plan.py) that lists every image in chunks, and
two Parquet files a chunk (results.py); a chunk is done when its second file is there. So a run that was killed anywhere
goes on with what is missing, on one machine (engine_local.py) or on many (engine_ray.py): both hand numbers of chunks
to the same `chunk.ChunkRunner`, which reads the images (reading.py) and gives them one by one to a process of its own
(worker.py), so that an image that kills or hangs its process takes nobody with it.
"""

from sharpmask.errors import MissingExtraError

try:
    import pyarrow  # noqa: F401
except ImportError as error:
    raise MissingExtraError("pyarrow", "bulk", "propose-bulk") from error
