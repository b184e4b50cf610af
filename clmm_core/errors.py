"""Errors a user or an operator can act on, one class per recovery.

    ClmmError
    ├── ConfigError         fix the run config, then start again
    ├── DataError           fix the recordings or their folder, then start again
    ├── ModelFileError         get the model's file again, export it again, or feed it what it was made for
    ├── DeviceSkippedError     this device cannot take part in this stage; the others go on
    ├── NotNowError         a host does not take part now; ask it again later
    ├── CodeMismatchError   a host runs other client code than the server's; reinstall it
    └── RoundFailedError    too few hosts answered; look at the hosts, then start again

Each message says what was expected, what was found, where (subject, modality, round or file) and what to do.
"""


class ClmmError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(ClmmError):
    """A run-config key is unknown, has the wrong type or a value out of range."""


class DataError(ClmmError):
    """A data set, a recording or a label cannot be used as it is."""


class ModelFileError(ClmmError):
    """An exported model cannot be used: its file is damaged, says other things than its graph, or is of another version."""


class DeviceSkippedError(ClmmError):
    """One device cannot take part in one stage, for the reason in the message."""


class NotNowError(ClmmError):
    """A host does not answer now, for the reason in the message; it may later."""


class CodeMismatchError(ClmmError):
    """A host answered with other client code than the server sent."""


class RoundFailedError(ClmmError):
    """A round got too few replies to count."""
