"""Sends what is in an outbox, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Final

from bz_plugin_email.smtp import Deadline, Delivery, DeliveryError, MailServer, blame

if TYPE_CHECKING:
    from pathlib import Path

    from bz_plugin_email.message import Mail
    from bz_plugin_email.outbox import Outbox, WaitingMail

logger = logging.getLogger(__name__)

_GRACE_SECONDS: Final = 0.5
"""How much longer than the deadline is waited for the thread, which needs a moment to write down what happened."""

_SLICE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mail in one round.

    Attributes:
        subject: Its subject.
        delivery: What the server did with it.
        path: Where the mail is now; None when everybody has got it.
    """

    subject: str
    delivery: Delivery
    path: Path | None


def send_waiting(outbox: Outbox, server: MailServer, sender: str, deadline: Deadline) -> tuple[Outcome, ...]:
    """Try once to send each mail that waits, all within one deadline.

    Raises:
        OSError: If the outbox cannot be read or written.
    """
    if not outbox.paths():
        return ()
    with outbox.claimed(deadline.remaining()) as is_ours:
        if not is_ours:
            return _unsent(list(outbox.waiting()), "another process is sending from this outbox")
        return _send_claimed(outbox, server, sender, deadline)


def _send_claimed(outbox: Outbox, server: MailServer, sender: str, deadline: Deadline) -> tuple[Outcome, ...]:
    outcomes: list[Outcome] = []
    mails = list(outbox.waiting())
    for index, mail in enumerate(mails):
        try:
            delivery = server.deliver(sender, mail.recipients, mail.content, deadline)
        except DeliveryError as error:
            return (*outcomes, *_unsent(mails[index:], str(error)))
        outcomes.append(Outcome(mail.subject, delivery, outbox.settle(mail, delivery)))
    return tuple(outcomes)


def _unsent(mails: Sequence[WaitingMail], reason: str) -> tuple[Outcome, ...]:
    return tuple(
        Outcome(mail.subject, Delivery(delayed=dict.fromkeys(mail.recipients, reason)), mail.path) for mail in mails
    )


def send_unsaved(mails: Sequence[Mail], server: MailServer, sender: str, deadline: Deadline) -> tuple[Outcome, ...]:
    """Send mails that could not be kept in an outbox; one that is not taken now is lost, which is logged."""
    outcomes = []
    for mail in mails:
        try:
            delivery = server.deliver(sender, mail.recipients, mail.content, deadline)
        except DeliveryError as error:
            delivery = Delivery(delayed=dict.fromkeys(mail.recipients, str(error)))
        for address, reason in delivery.delayed.items():
            logger.error("the mail %r to %s is lost: it could not be kept, and %s", mail.subject, address, reason)
        outcomes.append(Outcome(mail.subject, replace(delivery, delayed={}), None))
    return tuple(outcomes)


def report(outcome: Outcome) -> None:
    """Log what was sent, and what never will be."""
    delivery = outcome.delivery
    if delivery.sent_to:
        logger.info("sent the mail %r to %s", outcome.subject, ", ".join(delivery.sent_to))
    if delivery.refused:
        who = blame(delivery.refused)
        rest = f"; {', '.join(delivery.sent_to)} got it" if delivery.sent_to else ""
        place = f"; it is kept in {outcome.path}" if outcome.path else ""
        logger.warning("the mail %r was refused for %s%s%s", outcome.subject, who, rest, place)


class Courier:
    """Sends what waits in an outbox without keeping the caller waiting.

    The thread is a daemon, so that a look-up that hangs cannot hold up the end of the process, and lives only while
    there is something to do.

    Args:
        send: Makes one round; called in the thread.
        timeout_seconds: The deadline of a round.

    Attributes:
        delay: Why mail was still waiting after the last round; empty if none was.
    """

    def __init__(self, send: Callable[[Deadline], Sequence[Outcome]], timeout_seconds: float) -> None:
        self.delay = ""
        self._send = send
        self._timeout_seconds = timeout_seconds
        self._end: float | None = None
        self._lock = threading.Lock()
        self._is_wanted = False
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Make a round soon, after the one that is under way if there is one."""
        with self._lock:
            self._is_wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="bz-email", daemon=True)
                self._thread.start()

    def finish(self, is_cancelled: Callable[[], bool]) -> bool:
        """Wait until everything was tried, at most as long as one round may take.

        Args:
            is_cancelled: Asked many times a second whether to wait no longer.

        Returns:
            Whether there is nothing under way any more.

        Raises:
            OSError: If the outbox could not be read or written.
        """
        self._end = monotonic() + self._timeout_seconds
        while (thread := self._thread) is not None and monotonic() < self._end + _GRACE_SECONDS:
            if is_cancelled():
                break
            thread.join(_SLICE_SECONDS)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return self._thread is None

    def _work(self) -> None:
        while self._take_order():
            try:
                self._make_round()
            except BaseException as error:  # noqa: BLE001 - it is raised again where the guard of hooks can report it
                self._failure = error

    def _take_order(self) -> bool:
        with self._lock:
            is_wanted, self._is_wanted = self._is_wanted, False
            if not is_wanted:
                self._thread = None
            return is_wanted

    def _make_round(self) -> None:
        seconds = self._timeout_seconds
        if self._end is not None:
            seconds = min(seconds, max(self._end - monotonic(), 0.0))
        outcomes = self._send(Deadline(seconds))
        for outcome in outcomes:
            report(outcome)
        delayed = [outcome for outcome in outcomes if outcome.delivery.delayed]
        former, self.delay = self.delay, _delay(delayed[0].delivery) if delayed else ""
        if self.delay not in {"", former} and self._end is None:
            assert delayed[0].path is not None
            logger.warning("mail waits in %s: %s", delayed[0].path.parent, self.delay)


def _delay(delivery: Delivery) -> str:
    """Return why a mail still waits, and for whom unless it is for everybody and for one reason."""
    reasons = set(delivery.delayed.values())
    is_for_all = len(reasons) == 1 and not delivery.sent_to and not delivery.refused
    return reasons.pop() if is_for_all else blame(delivery.delayed)
