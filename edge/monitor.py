"""edge-monitor: listen to files, a pipe or a microphone, look at pictures, and tell when something of the watchlist is there."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from edge.alarm_pauses import MAX_ALARMS_PER_HOUR
from edge.alarms import Alarms
from edge.audio_events import Gap, Skipped
from edge.bundle import Bundle, Runtime, default_bundle
from edge.clips import ClipWriter
from edge.config import Config
from edge.config_installed import pair_of
from edge.encoder import AudioEncoder, compile_queries
from edge.errors import AudioError, BundleError, FieldcubeError, ImageError
from edge.matcher import Matcher
from edge.monitor_alarms import StateKeeper, open_alarms, unused_options
from edge.monitor_arguments import configuration, parse_arguments
from edge.monitor_feedback import fitted_calibrations
from edge.monitor_inputs import Hearing, Seeing, Speed, inputs_of
from edge.monitor_reports import JsonReport, PlainReport, Report
from edge.observation import Detection, Observation
from edge.pipeline import Pipeline
from edge.pipeline_keeper import Keeper, Totals
from edge.run_start import write_start
from edge.stopping import Stop
from edge.store import ObservationStore
from edge.store_schema import store_path
from edge.systemd import notify
from edge.unstored import Unstored
from edge.utf8 import print_utf8, shown
from edge.watchlist import Watchlist, load_watchlist

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run edge-monitor; return 0, 1 when it failed, 2 for bad usage, a bad list or a bad configuration."""
    print_utf8(sys.stdout)
    try:
        with Stop().on_signals() as stop:
            args = parse_arguments(argv)
            _monitor(configuration(args), args, stop)
        sys.stdout.flush()
    except FieldcubeError as error:
        print(f"edge-monitor: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, for example head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:  # asked twice
        print("edge-monitor: stopped at once", file=sys.stderr)
        return 1
    return 0


def _monitor(config: Config, args: argparse.Namespace, stop: Stop) -> None:
    pair = pair_of(config.encoder.bundle, config.monitor.queries)  # before anything of it is read
    bundle = Bundle.load(config.encoder.bundle or default_bundle())
    if bundle.manifest.calibration is None:
        raise BundleError(
            f"{bundle.folder}: expected a calibration in the manifest, found none; "
            "without it no distance says how likely a sound is: export the bundle again with one"
        )
    inputs = inputs_of(config.audio, bundle)
    watchlist = _watchlist(bundle, config)  # the text encoder is gone when the other ones are opened
    hearing = None if inputs.sound is None else Hearing.open(bundle, inputs.sound, config)
    seeing = Seeing.open(bundle, inputs.pictures, config.encoder) if inputs.pictures else None
    alarms = None if hearing is None else _alarms(bundle, watchlist, config, hearing, args.no_store)
    prior, kept_at = bundle.manifest.calibration, None if args.no_store else store_path(config.monitor.store)
    fits = fitted_calibrations(watchlist, prior, kept_at)
    matcher = Matcher(watchlist, bundle.manifest.decoys, prior, alarms, fits)
    totals, speed = Totals(), Speed(is_live=hearing is not None and hearing.is_live)

    def real_time_factor() -> float | None:
        """Return seconds of work for a second of sound."""
        return speed.real_time_factor(totals)

    with ExitStack() as stack:
        store = _store(config, args.no_store)
        stack.enter_context(store)
        learnt = None
        if alarms is not None and not args.no_store:
            learnt = StateKeeper(alarms, store_path(config.monitor.store))
            stack.callback(learnt.save)
        told = _report(args, matcher, watchlist, totals, real_time_factor)
        report = _Supervised(told, store, learnt, alarms)
        stack.callback(report.close)
        _log_to_stderr()
        if kept_at is not None:
            write_start(kept_at, pair, store.epoch, store.next_seq)
        if config.updates.folder is not None:  # which may have put others in the place of those of the file
            _log.info("bundle %s, watchlist %s", bundle.folder, config.monitor.queries)
        for name, fit in fits.items():
            _log.info("%s: probability by %s", shown(name), fit.source)
        report.tell_renewed()
        clips = None if hearing is None else _clips(config, hearing.encoder)
        if clips is not None:
            stack.callback(clips.close)
        _tell_start(report, bundle, watchlist, hearing, seeing)
        if alarms is None:
            _tell_unused(
                report,
                watchlist,
                "pictures are told by their probability"
                if hearing is None
                else "the bundle has no reference codes",
            )
        notify("READY=1")
        keeper = Keeper(store, report, totals)
        with speed.measured():
            if hearing is not None:
                pipeline = Pipeline(hearing.encoder, matcher, keeper, clips, hearing.hop_samples)
                pipeline.run(stop.until_asked(hearing.events()))
        if seeing is not None:
            seeing.pipeline(matcher, keeper).run(stop.until_asked(seeing.source.events()))
        notify("STOPPING=1")
    totals.n_clips_lost = 0 if clips is None else clips.n_lost
    totals.n_limited = 0 if alarms is None else alarms.n_limited
    report.tell_renewed()
    report.summary(totals, real_time_factor())
    if report.first_failure and not totals.n_windows and not stop.is_asked:
        if seeing is not None:
            raise ImageError(f"expected pictures that can be read, found none: {report.first_failure}")
        raise AudioError(f"expected sound that can be heard, found none: {report.first_failure}")


class _Supervised:
    """Passes what happens on to a report; tells systemd of written codes and people of limits, remembers the first failure."""

    def __init__(
        self,
        report: Report,
        store: ObservationStore | Unstored,
        learnt: StateKeeper | None = None,
        alarms: Alarms | None = None,
    ) -> None:
        self.first_failure = ""
        self._learnt, self._alarms = learnt, alarms
        self._report, self._store = report, store
        self._epoch, self._n_written, self._n_put_aside = store.epoch, store.committed_seq, 0
        self.heard, self.state, self.failing = report.heard, report.state, report.failing
        self.summary, self.close = report.summary, report.close

    def observed(self, observation: Observation, detections: Sequence[Detection]) -> None:
        """Health is a code that was written, not a process that is alive."""
        self.tell_renewed()
        if self._store.epoch != self._epoch:  # a new database counts from 0
            self._epoch, self._n_written = self._store.epoch, 0
        if self._store.committed_seq > self._n_written:
            self._n_written = self._store.committed_seq
            notify("WATCHDOG=1")
        if self._learnt is not None:
            self._learnt.save_if_due()
        self._report.observed(observation, detections)
        for limited in [] if self._alarms is None else self._alarms.take_limited():
            self._report.state(
                "alarms_limited",
                query=limited.query.name,
                per_hour=MAX_ALARMS_PER_HOUR,
                n_held_back=limited.n_held_back,
            )

    def tell_renewed(self) -> None:
        """Tell of the damaged databases that were put aside since the last time."""
        put_aside = self._store.put_aside
        for damaged in put_aside[self._n_put_aside :]:
            self._report.state("store_begun_anew", damaged=shown(damaged))
        self._n_put_aside = len(put_aside)

    def lost(self, gap: Gap, sample_rate_hz: int) -> None:
        """Pass on lost sound."""
        self.first_failure = self.first_failure or f"{gap.source}: {gap.reason}"
        self._report.lost(gap, sample_rate_hz)

    def skipped(self, skipped: Skipped) -> None:
        """Pass on a source that could not be heard."""
        self.first_failure = self.first_failure or f"{skipped.source}: {skipped.reason}"
        self._report.skipped(skipped)


def _watchlist(bundle: Bundle, config: Config) -> Watchlist:
    """Return the queries with codes of the bundle; sentences are compiled now."""
    assert config.monitor.queries is not None  # configuration() refuses to go on without
    manifest = bundle.manifest
    loaded = load_watchlist(config.monitor.queries, manifest.code_space, manifest.code_bits)
    if isinstance(loaded, Watchlist):
        return loaded
    return compile_queries(bundle, loaded, config.encoder.runtime, config.encoder.threads)


def _alarms(
    bundle: Bundle, watchlist: Watchlist, config: Config, hearing: Hearing, no_store: bool
) -> Alarms | None:
    """Return the calibrated alarms of the run, None for a bundle that brings no reference codes."""
    hop_s = hearing.hop_samples / hearing.encoder.sample_rate_hz
    store = None if no_store else store_path(config.monitor.store)
    return open_alarms(bundle, watchlist, config, hop_s, store)


def _store(config: Config, no_store: bool) -> ObservationStore | Unstored:
    device_id = config.deployment.device_id
    if no_store:
        return Unstored(device_id)
    interval_s = config.monitor.commit_interval_s
    return ObservationStore.open(config.monitor.store, device_id, commit_interval_s=interval_s)


def _clips(config: Config, encoder: AudioEncoder) -> ClipWriter | None:
    monitor, deployment = config.monitor, config.deployment
    if not monitor.clips:
        return None
    beside = store_path(monitor.store)
    return ClipWriter(
        monitor.clips_dir or beside.with_name(f"{beside.stem}-clips"),
        monitor.clip_pre_s,
        monitor.clip_post_s,
        rate_hz=encoder.sample_rate_hz,
        window_samples=encoder.window_samples,
        max_s=monitor.clip_max_s,
        quota_bytes=monitor.clip_quota_bytes,
        latitude=deployment.latitude,
        longitude=deployment.longitude,
    )


def _report(
    args: argparse.Namespace,
    matcher: Matcher,
    watchlist: Watchlist,
    totals: Totals,
    real_time_factor: Callable[[], float | None],
) -> Report:
    if args.json:
        return JsonReport(sys.stdout, watchlist)
    if args.view or (args.view is None and sys.stdout.isatty()):
        from edge.monitor_view import LiveView  # brings rich: only where somebody looks

        return LiveView(matcher, watchlist, totals, real_time_factor)
    return PlainReport(sys.stdout, watchlist, sys.stderr)


def _tell_start(
    report: Report, bundle: Bundle, watchlist: Watchlist, hearing: Hearing | None, seeing: Seeing | None
) -> None:
    """Tell with what the recorder listens, and with what it looks."""
    manifest = bundle.manifest
    n_queries = sum(not query.decoy for query in watchlist.queries)

    def tell(name: str, runtime: Runtime, **details: Any) -> None:
        report.state(
            name,
            bundle=f"{manifest.name} {manifest.version}",
            code_space=manifest.code_space,
            runtime=runtime,
            queries=n_queries,
            **details,
        )

    if hearing is not None:
        encoder = hearing.encoder
        tell(
            "listening",
            encoder.runtime,
            window_s=encoder.window_samples / encoder.sample_rate_hz,
            hop_s=hearing.hop_samples / encoder.sample_rate_hz,
        )
    if seeing is not None:
        tell("looking", seeing.encoder.runtime, size_pixels=seeing.encoder.takes.size)


def _tell_unused(report: Report, watchlist: Watchlist, reason: str) -> None:
    """Tell what lines ask for in vain: once, and nothing where they ask for no more than the rule knows."""
    unused = unused_options(watchlist)
    if unused:
        names = dict.fromkeys(name for lines in unused.values() for name in lines)
        report.state(
            "options_ignored", options=", ".join(unused), queries=shown(", ".join(names)), reason=reason
        )


def _log_to_stderr() -> None:
    """Send log records to stderr, as it is when they come: the live view replaces it for a while."""
    logging.basicConfig(level=logging.INFO, format="edge-monitor: %(message)s", stream=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
