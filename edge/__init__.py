"""The recorder: sound in, 256-bit codes, detections and observations out. Never imports torch."""

__version__ = "0.1.0"
