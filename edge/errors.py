"""Error tree of fieldcube: everything a command turns into one line on stderr and an exit code.

FieldcubeError                  1  anything that failed and can be explained
├── UsageError                  2  wrong arguments
├── ConfigError                 2  a configuration file that cannot be used
├── WatchlistError              2  a line of a watchlist that cannot be used
├── BundleError                 1  a bundle that must not run
│   └── CodeSpaceError          1  codes of different code spaces or widths
├── ObservationError            1  an observation or detection that breaks its contract
├── AudioError                  1  a source that cannot be opened or heard
├── ImageError                  1  a picture that cannot be read
├── EncoderError                1  an encoder that fails or answers nonsense
├── StoreError                  1  the database cannot be opened, written or read
├── WireError                   1  a batch, receipt or frame that is damaged or not signed by whom it names
├── SyncError                   1  what keeps a recorder from delivering; the next run tries again
├── HubError                    1  the central server cannot do what was asked
│   └── ArchiveError            1  its archive of codes cannot be opened, written or read
└── MissingDependencyError      1  a library that is not installed; says the command that installs it

Messages name the file, what was expected, what was found, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class FieldcubeError(Exception):
    """Root of every error that fieldcube raises on purpose; exit_code is what a command returns for it."""

    exit_code: ClassVar[int] = 1


class UsageError(FieldcubeError):
    """Arguments that contradict each other or name nothing."""

    exit_code: ClassVar[int] = 2


class ConfigError(FieldcubeError):
    """A configuration file that is missing, unreadable or has an unknown key or a value out of range."""

    exit_code: ClassVar[int] = 2


class WatchlistError(FieldcubeError):
    """A watchlist that cannot be used; the message starts with file:line where there is one."""

    exit_code: ClassVar[int] = 2


class BundleError(FieldcubeError):
    """A bundle that is incomplete, changed, or of another format."""


class CodeSpaceError(BundleError):
    """Codes that must not be compared: another code space or another width."""


class ObservationError(FieldcubeError):
    """An observation or detection with a missing, unknown-version or impossible field."""


class AudioError(FieldcubeError):
    """A sound source that cannot be opened, or a format that cannot be read."""


class ImageError(FieldcubeError):
    """A picture that cannot be opened, or not to its end."""


class EncoderError(FieldcubeError):
    """An encoder that cannot be opened, or whose output has a wrong shape or is not finite."""


class StoreError(FieldcubeError):
    """The observation database cannot be opened, written or read."""


class WireError(FieldcubeError):
    """A batch, receipt, envelope or frame that is damaged, of another version or not signed by whom it names."""


class SyncError(FieldcubeError):
    """What keeps a recorder from delivering: no hub, a refusal, an answer that makes no sense."""


class HubError(FieldcubeError):
    """The central server cannot do what was asked."""


class ArchiveError(HubError):
    """An archive that cannot be opened, written or read, or that holds no codes of the code space asked for."""


class MissingDependencyError(FieldcubeError):
    """A library that is not installed; the message ends with the pip or apt command that installs it."""
