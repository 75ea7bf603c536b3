"""Checkpoint -> bundle: ONNX and TFLite graphs, quantisation, parity, manifest. Runs on a workstation, never on a recorder."""
