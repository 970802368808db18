"""Sends mail when a run completes, fails, is interrupted or reaches a goal."""

from bz_plugin_email.plugin import EmailNotificationPlugin

__all__ = ["EmailNotificationPlugin"]
