"""Measure a network on canonical patches: objects centred and scaled as in training, without jitter.

Prints the masks' IoU (mean, median, share >= .5 and >= .7) and how well the score tells objects from other windows,
each with a 95 % bootstrap interval over images."""

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=str, required=True, help="name of a bundled model or a .safetensors file")
    parser.add_argument(
        "--annotations", type=str, required=True, metavar="ANN.json", help="COCO `instances` annotations"
    )
    parser.add_argument("--images", type=str, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--count", type=int, default=1000, help="objects at most, drawn by the seed; 0 takes all")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of objects, the negatives and the bootstrap")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability above which a pixel is object")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, …")
    parser.add_argument("--json", type=str, metavar="OUT.json", help="write the figures to this file")


def run(args: jsonargparse.Namespace) -> int:
    import json
    from contextlib import nullcontext

    from sharpmask.evaluation.canonical import evaluate_canonical
    from sharpmask.files import atomic_write

    # The file is opened first: a folder that does not exist must not cost the time of the evaluation.
    with atomic_write(args.json) if args.json else nullcontext() as out:
        metrics, notes = evaluate_canonical(
            args.model,
            annotations=args.annotations,
            image_dir=args.images,
            count=args.count,
            seed=args.seed,
            threshold=args.threshold,
            batch_size=args.batch_size,
            device=args.device,
        )
        print("\n".join([metrics.text(args.model), *notes]))
        if out is not None:
            content = {"model": args.model, "annotations": args.annotations, **metrics.to_dict(), "notes": notes}
            out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0
