"""The settings: what is accepted, and what is refused before a run begins."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from email.headerregistry import Address
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from bz.config import describe_faults
from bz.errors import ConfigError
from bz_plugin_email.addresses import parse_addresses
from bz_plugin_email.condition import Condition

Security = Literal["starttls", "tls", "none"]

DEFAULT_PORTS: Final[Mapping[Security, int]] = {"starttls": 587, "tls": 465, "none": 25}


class EmailNotificationConfig(BaseModel):
    """Settings of the e-mail plugin."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True, validate_default=True
    )

    smtp_server: str = Field(min_length=1)
    """Host name or address of the mail server; required."""

    smtp_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the mail server; by default 587, with `tls` 465, with `none` 25."""

    username: str | None = Field(default=None, min_length=1)
    """Name to log in with; by default there is no login."""

    password: SecretStr | None = Field(default=None, min_length=1)
    """Password to log in with; best written as `${NAME}`, which reads the environment."""

    from_email: str = Field(min_length=1)
    """Address of the sender; required."""

    to_email: str | list[str] = Field(min_length=1)
    """Address of the recipient; for several a list, or text with commas; required."""

    security: Security = "starttls"
    """How the connection is encrypted: `starttls`, `tls` from the first byte, or `none` (only without a password)."""

    ca_file: Path | None = None
    """File with the only certificates to trust, in PEM form; by default those of the system."""

    timeout_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Longest time that sending may take in all, and that the end of a run waits for it, in seconds."""

    on_completion: bool = True
    """Whether to send a mail when the run completes, or is stopped by a plugin."""

    on_failure: bool = True
    """Whether to send a mail, with the error, when the run fails."""

    on_interruption: bool = True
    """Whether to send a mail when a signal ends the run."""

    every_epochs: int = Field(default=0, ge=0)
    """Epochs from one progress mail to the next; 0 for none. The last epoch is left to the closing mail."""

    when: str | list[str] | None = None
    """Sends one mail as soon as a bound is passed, as in `validation_accuracy > 0.97`; one condition or a list."""

    loss_curve: bool = True
    """Whether the mail shows the losses as a picture, where matplotlib is installed."""

    @field_validator("smtp_server")
    @classmethod
    def _check_server(cls, value: str) -> str:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            if not value.isprintable() or not value.isascii() or set(value) & set(" :/@"):
                raise ValueError("must be a host name, without a port, or an address") from None
        return value

    @field_validator("from_email")
    @classmethod
    def _check_sender(cls, value: str) -> str:
        if len(parse_addresses(value)) != 1:
            raise ValueError("must be one mail address")
        return value

    @field_validator("to_email")
    @classmethod
    def _check_recipients(cls, value: str | list[str]) -> str | list[str]:
        for text in _as_list(value):
            parse_addresses(text)
        return value

    @field_validator("security")
    @classmethod
    def _check_security(cls, value: Security, info: Any) -> Security:
        if value == "none" and info.data.get("password") is not None:
            raise ValueError("must be 'starttls' or 'tls' with a password, which would otherwise be sent in clear")
        return value

    @field_validator("ca_file")
    @classmethod
    def _check_certificates(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            ssl.create_default_context(cafile=value)
        except OSError as error:  # ssl.SSLError is one, too
            raise ValueError(f"must be a file with certificates in PEM form ({error.strerror or error})") from None
        return value.absolute()

    @field_validator("when")
    @classmethod
    def _check_conditions(cls, value: str | list[str] | None) -> str | list[str] | None:
        for text in _as_list(value):
            Condition.parse(text)
        return value

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if (self.username is None) != (self.password is None):
            given, missing = ("username", "password") if self.password is None else ("password", "username")
            raise ValueError(f"has a `{given}` without a `{missing}`; give both or neither")
        if not (self.username or "").isascii() or not self.secret.isascii():
            raise ValueError("has a `username` or `password` outside ASCII, which Python's SMTP client cannot send")
        if self.ca_file is not None and self.security == "none":
            raise ValueError("has a `ca_file`, which has no effect with `security` 'none'; leave one of them out")
        return self

    @property
    def port(self) -> int:
        """The port to connect to."""
        return DEFAULT_PORTS[self.security] if self.smtp_port is None else self.smtp_port

    @property
    def secret(self) -> str:
        """The password as it is, empty when there is none."""
        return "" if self.password is None else self.password.get_secret_value()

    @property
    def sender(self) -> Address:
        """Who the mail is from."""
        return parse_addresses(self.from_email)[0]

    @property
    def recipients(self) -> tuple[Address, ...]:
        """Who the mail is for, each address once."""
        addresses = [address for text in _as_list(self.to_email) for address in parse_addresses(text)]
        return tuple({address.addr_spec: address for address in addresses}.values())

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of `when`."""
        return tuple(Condition.parse(text) for text in _as_list(self.when))


def _as_list(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def read_settings(email_config: object) -> EmailNotificationConfig:
    """Return the settings of a script, checked.

    Raises:
        ConfigError: With one sentence for each thing that is wrong, and no value of a secret.
    """
    if isinstance(email_config, EmailNotificationConfig):
        return email_config
    if not isinstance(email_config, Mapping):
        kind = type(email_config).__name__
        raise ConfigError(f"`email_config` must be a dict such as {{'smtp_server': ...}}, got a value of type {kind}.")
    settings = dict(email_config)
    try:
        return EmailNotificationConfig.model_validate(settings)
    except ValidationError as error:
        faults = describe_faults(error, EmailNotificationConfig, settings, prefix=("email_config",))
    # Outside of `except`: pydantic's error knows the values, and must not be chained to this one.
    raise ConfigError.join(ConfigError(f"EmailNotificationPlugin: {fault.text}") for fault in faults)
