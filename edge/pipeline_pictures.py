"""The way of pictures: picture -> encoder -> code -> observation -> matcher -> store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge.audio_events import Skipped
from edge.codes import pack
from edge.encoder import ImageEncoder
from edge.errors import EncoderError
from edge.matcher import Matcher
from edge.observation import PICTURE_RATE_HZ
from edge.picture_files import Picture
from edge.pipeline_keeper import Keeper


@dataclass(slots=True)
class PicturePipeline:
    """The parts of a recorder that looks; each picture is one observation. A picture that is refused is skipped.

    The picture itself stays where it is: no clip is kept of it.
    """

    encoder: ImageEncoder
    matcher: Matcher
    keeper: Keeper
    clock: Callable[[], float] = time.perf_counter

    def run(self, pictures: Iterable[Picture | Skipped]) -> None:
        """Take the pictures of a source to their end."""
        for item in pictures:
            self.keeper.write_if_due()
            if isinstance(item, Skipped):
                self.keeper.skip(item)
            else:
                self._observe(item)

    def _observe(self, picture: Picture) -> None:
        start = self.clock()
        encoder, keeper = self.encoder, self.keeper
        try:
            code = pack(encoder.encode(picture.pixels), encoder.code_bits)
        except EncoderError as error:  # one impossible picture must not stop the rest
            keeper.skip(Skipped(picture.source, f"not encoded: {error}"))
            return
        observation = keeper.observation(
            code.tobytes(), encoder.code_space, picture.source, 0, PICTURE_RATE_HZ, 0, picture.instant
        )
        detections = self.matcher.match(observation)
        keeper.keep(observation, detections)
        keeper.totals.busy_s += self.clock() - start
        keeper.listener.observed(observation, detections)
