"""The whole road from an image to ranked masks as one graph, for programs without PyTorch (ONNX, OpenVINO)."""
