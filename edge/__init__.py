"""The recorder: sound in, 256-bit codes, detections and observations out. Never imports a training framework."""

__version__ = "0.1.0"
