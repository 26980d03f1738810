"""Fetch a model that the authors published for Torch7, import it once, and keep it for offline use.

The download goes on where it stopped when it is run again. The result lies in the cache folder ($SHARPMASK_CACHE, by
default sharpmask in the user's cache folder); use the name as `--model`. The import is tested on small files of the
original programs, not on the published ones."""

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=["deepmask-fair", "sharpmask-fair"], help="the published model")


def run(args: jsonargparse.Namespace) -> int:
    from tqdm import tqdm

    from sharpmask.checkpoints.download import load_published

    with tqdm(unit="B", unit_scale=True, unit_divisor=1024, desc=args.name, disable=None, leave=False) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        load_published(args.name, progress=progress, say=tqdm.write)
    return 0
