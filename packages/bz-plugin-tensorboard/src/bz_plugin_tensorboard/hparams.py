"""The HParams tab: what a run was made with and how it ended, in the event file of the run itself.

`SummaryWriter.add_hparams` makes a run of its own for each call, and names the hyperparameters of
all runs by those of one. Without its experiment record, TensorBoard gathers the columns from the
runs: hyperparameters from their session records, metrics from the last point of each curve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from bz.config.redaction import redact

if TYPE_CHECKING:
    from bz.progress import Status

STATUSES: Final[dict[Status, str]] = {
    "completed": "STATUS_SUCCESS",
    "stopped": "STATUS_SUCCESS",
    "failed": "STATUS_FAILURE",
}


def session_start(hyperparameters: Mapping[str, Any], seconds: float) -> Any:
    """Return the summary that says with which hyperparameters a run began, and when (Unix time)."""
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    info = SessionStartInfo(start_time_secs=seconds)
    for name, value in columns(redact(hyperparameters)):
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = value
    return _summary(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def session_end(status: Status, seconds: float) -> Any | None:
    """Return the summary that says how a run ended and when, or None for one that will go on."""
    from tensorboard.plugins.hparams.api_pb2 import Status as HParamsStatus
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    if status not in STATUSES:
        return None
    info = SessionEndInfo(status=HParamsStatus.Value(STATUSES[status]), end_time_secs=seconds)
    return _summary(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def columns(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Yield one column for each value, those of nested mappings under names such as `optimizer.lr`."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from columns(value, f"{name}.")
        else:
            yield name, value if isinstance(value, bool | int | float | str) else str(value)


def _summary(tag: str, content: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

    value = Summary.Value(tag=tag, metadata=create_summary_metadata(content), tensor=NULL_TENSOR)
    return Summary(value=[value])
