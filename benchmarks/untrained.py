"""Write a model of the spec table with random weights, to measure times of models that are not bundled.

    python benchmarks/untrained.py sharpmask-resnet50-caffe OUT.safetensors [--trunk-weights FILE]

Its masks mean nothing; how long they take to encode may differ from those of a trained model.
"""

import argparse

import torch

from sharpmask.checkpoints.store import load_trunk, save_network
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import get_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--trunk-weights", default=None, help="ImageNet weights of the trunk")
    args = parser.parse_args()
    torch.manual_seed(0)
    network = build_network(get_spec(args.model))
    if args.trunk_weights:
        load_trunk(network, args.trunk_weights)
    save_network(network.eval(), args.output)


if __name__ == "__main__":
    main()
