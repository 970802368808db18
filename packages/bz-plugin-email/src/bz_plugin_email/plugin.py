"""The plugin: decides when there is a mail, and hands it over."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bz.errors import suggestion
from bz.plugins import Plugin, hookimpl
from bz_plugin_email.config import EmailNotificationConfig, read_settings
from bz_plugin_email.courier import Courier, Outcome, send_unsaved, send_waiting
from bz_plugin_email.curve import draw_losses
from bz_plugin_email.event import Event, closing_event, condition_event, epoch_event
from bz_plugin_email.message import compose
from bz_plugin_email.outbox import FOLDER, Outbox
from bz_plugin_email.record import RunRecord
from bz_plugin_email.report import write_report
from bz_plugin_email.smtp import Deadline, MailServer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bz.context import TrainingContext
    from bz_plugin_email.condition import Condition
    from bz_plugin_email.message import Mail

logger = logging.getLogger(__name__)


class EmailNotificationPlugin(Plugin):
    """Sends mail when a run completes, fails, is interrupted, reaches a bound, or every few epochs.

    A mail is first written to the folder `outbox` of the run and then sent by a thread of its own,
    so that none is lost when the server is not there, or when the process is killed.

    Args:
        email_config: The settings, as a dict with the keys of `EmailNotificationConfig`.

    Raises:
        ConfigError: If a setting is not accepted.
    """

    name: ClassVar[str] = "email"
    Config: ClassVar[type[BaseModel] | None] = EmailNotificationConfig

    def __init__(self, email_config: Mapping[str, Any] | EmailNotificationConfig) -> None:
        self._settings = read_settings(email_config)
        self._server = MailServer(self._settings)
        self._session: _Session | None = None

    @classmethod
    def from_config(cls, config: BaseModel) -> Self:
        """Return the plugin with these settings."""
        assert isinstance(config, EmailNotificationConfig)
        return cls(config)

    def start_training_session(self, context: TrainingContext) -> None:
        """Begin a record of the run, and send what an earlier session in this folder left behind."""
        self._session = _Session(self._settings, self._server, context)
        self._session.send_left_behind()

    def start_training_loop(self, context: TrainingContext) -> None:  # noqa: ARG002 - every hook takes it
        """Note that a validation from now on is one inside the epoch."""
        if self._session is not None:
            self._session.is_training = True

    def end_training_loop(self, context: TrainingContext) -> None:  # noqa: ARG002
        """Note that a validation from now on is part of the end of the epoch."""
        if self._session is not None:
            self._session.is_training = False

    def end_validation_loop(self, context: TrainingContext) -> None:
        """Take losses and metrics of a validation inside the epoch; send a mail if a bound was passed."""
        if self._session is not None and self._session.is_training:
            self._session.end_validation(context)

    def end_epoch(self, context: TrainingContext) -> None:
        """Take the losses and metrics; send a mail if the epoch is due for one or a bound was passed."""
        if self._session is not None:
            self._session.end_epoch(context)

    @hookimpl(trylast=True)
    def end_training_session(self, context: TrainingContext) -> None:
        """Send the last mail and wait for it, at most `timeout_seconds`; after the other plugins have closed."""
        if self._session is not None:
            self._session.close(context)

    def state_dict(self) -> dict[str, Any]:
        """Return the record of the run: identity, duration, losses, metrics, and the bounds that were passed."""
        return {} if self._session is None else self._session.record.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the record of the run that is resumed."""
        if self._session is not None and state:
            self._session.record.load_state_dict(state)


class _Session:
    """The mails of one session.

    Attributes:
        record: What they tell about the run.
        is_training: Whether the training batches of an epoch are under way.
    """

    def __init__(self, settings: EmailNotificationConfig, server: MailServer, context: TrainingContext) -> None:
        self.record = RunRecord(context.started_at)
        self.is_training = False
        self._settings = settings
        self._server = server
        self._outbox = Outbox(context.output_path(FOLDER))
        self._courier = Courier(self._send, settings.timeout_seconds)
        self._unsaved: deque[Mail] = deque()
        self._unchecked = list(settings.conditions)

    def send_left_behind(self) -> None:
        """Send what waits already."""
        if self._outbox.paths():
            self._courier.start()

    def end_epoch(self, context: TrainingContext) -> None:
        """Add the epoch to the record and write the mails that are due."""
        self.record.add_epoch(context)
        self._check_names(context)
        self._post_passed(context)
        event = epoch_event(context, self._settings)
        if event is not None:
            self._post(event, context)

    def end_validation(self, context: TrainingContext) -> None:
        """Add a validation inside the epoch to the record and write the mails about bounds that it passes."""
        self.record.add_validation(context)
        self._post_passed(context)

    def _post_passed(self, context: TrainingContext) -> None:
        events = [self._pass(condition) for condition in self._settings.conditions]
        for event in filter(None, events):
            self._post(event, context)

    def close(self, context: TrainingContext) -> None:
        """Write the closing mail, wait for the courier, and say what could not be sent."""
        event = closing_event(context, self._settings)
        try:
            if event is not None:
                self._post(event, context)
        finally:
            had_stop = context.should_stop_training
            # The first Ctrl-C is only noted by the trainer, as a wish to stop.
            is_done = self._courier.finish(lambda: context.should_stop_training and not had_stop)
            self._report_waiting(is_done=is_done)

    def _pass(self, condition: Condition) -> Event | None:
        """Return the event of a bound that is passed for the first time."""
        if str(condition) in self.record.passed or not condition.is_met(self.record.values):
            return None
        self.record.passed.append(str(condition))
        return condition_event(condition, self.record.values[condition.name])

    def _check_names(self, context: TrainingContext) -> None:
        """Say, once, which conditions can never be met because nothing has that name."""
        known = self.record.values
        is_validated = "validation_loss" in known or not context.has_validation
        unchecked, self._unchecked = self._unchecked, []
        for condition in unchecked:
            if condition.name.startswith("validation_") and not is_validated:
                self._unchecked.append(condition)  # not every epoch has a validation
            elif condition.name not in known:
                hint = suggestion(condition.name, known) or f" Known: {', '.join(known)}."
                logger.warning("`when` has %r, but this run has no %r.%s", str(condition), condition.name, hint)

    def _post(self, event: Event, context: TrainingContext) -> None:
        """Write a mail and have it sent.

        Raises:
            OSError: If it cannot be kept in the outbox; it is sent all the same, but only tried once.
        """
        picture = draw_losses(self.record.losses) if self._settings.loss_curve else None
        report = write_report(event, context, self.record, self._server.scrub)
        mail = compose(report, self._settings, f"{self.record.run_id} {event.key}", picture)
        try:
            if self._outbox.add(mail):
                self._courier.start()
        except OSError:
            self._unsaved.append(mail)
            self._courier.start()
            raise

    def _send(self, deadline: Deadline) -> Sequence[Outcome]:
        """Make one round; runs in the courier's thread."""
        unsaved = [self._unsaved.popleft() for _ in range(len(self._unsaved))]
        sender = self._settings.sender.addr_spec
        return (
            *send_unsaved(unsaved, self._server, sender, deadline),
            *send_waiting(self._outbox, self._server, sender, deadline),
        )

    def _report_waiting(self, *, is_done: bool) -> None:
        waiting = self._outbox.paths()
        if waiting:
            what = "1 mail waits" if len(waiting) == 1 else f"{len(waiting)} mails wait"
            reason = self._courier.delay if is_done and self._courier.delay else "sending was not done in time"
            remedy = "the next session in this run folder sends it, or: bz email flush"
            logger.warning("%s in %s: %s; %s", what, self._outbox.folder, reason, remedy)
