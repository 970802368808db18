"""Mail addresses as people write them in settings."""

from __future__ import annotations

import email.policy
from email.headerregistry import Address
from typing import Any

WANTED = "such as 'name@example.com' or 'Name <name@example.com>'"


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Return the addresses of a comma list.

    Raises:
        ValueError: If one of them is not an address that every server takes.
    """
    if not text.isprintable():
        raise ValueError("must be a mail address without line breaks and control characters")
    header: Any = email.policy.SMTP.header_factory("To", text)
    addresses: tuple[Address, ...] = header.addresses
    if not all(address.addr_spec.isascii() for address in addresses):
        raise ValueError("must be a mail address in ASCII letters; write an international domain in its xn-- form")
    if header.defects or not addresses or not all(address.username and address.domain for address in addresses):
        raise ValueError(f"must be a mail address {WANTED}")
    return addresses
