"""Exception hierarchy: every error that a user can fix.

::

    MvdeError                       exit code 1
    ├── UsageError (ValueError)     exit code 2: the call or the command line is wrong
    │   ├── ConfigError             a configuration key is unknown, ill-typed or out of range
    │   ├── ResolutionError         a resolution does not fit the patch grid
    │   └── EngineIdError           an engine id is not in the grammar, or names an unknown backend
    ├── ImageError                  an image is missing, truncated, too large or of the wrong kind
    ├── LogError                    a robot's log cannot be read, or not all of it
    ├── DatasetError                a dataset's file is missing or malformed, or the dataset is empty
    ├── TrainingError               training diverged: a loss, gradient or weight is not finite
    ├── CheckpointError             weights are missing, corrupted, or of another architecture
    ├── ArtifactError               an artefact (ONNX file, engine, manifest) cannot be used
    │   ├── ManifestError           the manifest is missing or malformed
    │   ├── HashMismatchError       a file is not the one its manifest describes
    │   └── IncompatibleEngineError the engine was built for another machine or library version
    ├── ParityError                 two stages disagree by more than the stated tolerance
    ├── BackendError                an inference library failed
    ├── MissingDependencyError (ImportError)  an optional package is not installed
    ├── ReportError                 a benchmark report cannot be read or compared with
    ├── RegressionError             a benchmark regressed by more than the allowed ratio
    └── OutputError                 a result could not be written

Each message states what was given, what was expected and what to do. The command line prints it as one line and exits
with :attr:`MvdeError.exit_code`.
"""

from __future__ import annotations


class MvdeError(Exception):
    """Base class of mvde's errors. ``exit_code`` is the command line's exit status."""

    exit_code = 1


class UsageError(MvdeError, ValueError):
    """The call or the command line is wrong: an argument is out of range or does not fit the others."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key is unknown, ill-typed or out of range; the message names the key."""


class ResolutionError(UsageError):
    """A resolution does not fit the patch grid; the message names the nearest sizes that do."""


class EngineIdError(UsageError):
    """An engine id is not ``[backend:]precision``, or names an unknown backend or precision."""


class ImageError(MvdeError):
    """An image is missing, truncated, too large, or not 8-bit RGB where that is required."""


class LogError(MvdeError):
    """A robot's log cannot be read, or a message of it cannot be decoded."""


class DatasetError(MvdeError):
    """A dataset's file is missing or malformed, or the dataset is empty; the message names the file."""


class TrainingError(MvdeError):
    """Training diverged: a loss, gradient or weight is not finite; saved checkpoints are untouched."""


class CheckpointError(MvdeError):
    """Weights are missing, corrupted, or of another architecture."""


class ArtifactError(MvdeError):
    """An artefact (ONNX file, engine or manifest) cannot be used."""


class ManifestError(ArtifactError):
    """The manifest beside an artefact is missing or malformed."""


class CalibrationError(ArtifactError):
    """A calibration is malformed or of another graph, or reference points do not determine one."""


class HashMismatchError(ArtifactError):
    """A file's SHA-256 differs from its manifest."""


class IncompatibleEngineError(ArtifactError):
    """An engine was built for another machine, library version or ONNX file."""


class ParityError(MvdeError):
    """Two stages (PyTorch, ONNX, engine) disagree by more than the stated tolerance."""


class BackendError(MvdeError):
    """An inference library failed to compile, load or run a model."""


class MissingDependencyError(MvdeError, ImportError):
    """An optional package is not installed; the message names the extra that installs it."""

    @classmethod
    def for_extra(cls, package: str, extra: str, purpose: str) -> MissingDependencyError:
        """Build the error for a missing ``package``, naming the extra that installs it and its purpose."""
        return cls(f"{purpose} needs the package '{package}', which is not installed: pip install 'mvde[{extra}]'")


class ReportError(MvdeError):
    """A benchmark report is missing or malformed, or describes another machine or other frames."""


class RegressionError(MvdeError):
    """A benchmark is slower than its baseline by more than the allowed ratio."""


class OutputError(MvdeError):
    """A result could not be written; any existing file is untouched."""
