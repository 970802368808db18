"""A report as the HTML part of a mail.

Mail programs know little of CSS: the layout is tables, every style is inline, and the one style sheet holds what is
nice to have (dark mode), so that a program that drops it still shows a readable mail.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from bz_plugin_email.curve import WIDTH
from bz_plugin_email.report import EPOCHS_SHOWN

if TYPE_CHECKING:
    from bz_plugin_email.report import Report

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{subject}</title>
<style>
:root {{ color-scheme: light dark; }}
@media (prefers-color-scheme: dark) {{
  .page {{ background: #161616 !important; }}
  .card {{ background: #222220 !important; border-color: #3a3a37 !important; }}
  .card h1, .card td, .card th, .card p {{ color: #ecebe7 !important; border-color: #3a3a37 !important; }}
  .card .label {{ color: #b3b1aa !important; }}
  .card .best td {{ color: #7cc98f !important; }}
}}
</style>
</head>
<body class="page" style="margin:0; padding:0; background:#f4f3f0;">
<table role="presentation" class="page" width="100%" cellpadding="0" cellspacing="0" style="background:#f4f3f0;">
<tr><td align="center" style="padding:16px 8px;">
<table role="presentation" class="card" width="100%" cellpadding="0" cellspacing="0" style="max-width:{card}px; \
background:#ffffff; border:1px solid #e4e3df; border-radius:8px; {font}">
<tr><td style="padding:20px;">
<h1 style="margin:0 0 8px; font-size:20px; line-height:1.3; color:#1f1e1c; overflow-wrap:anywhere;">{subject}</h1>
<p style="margin:0 0 16px; font-size:15px; line-height:1.5; color:#1f1e1c; overflow-wrap:anywhere;">{sentence}</p>
{content}
</td></tr>
</table>
</td></tr>
</table>
</body>
</html>
"""
_FONT: Final = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;"
_CELL: Final = "padding:6px 8px 6px 0; border-bottom:1px solid #e4e3df; font-size:14px; line-height:1.4;"
_TABLE: Final = '<table role="{role}" width="100%" cellpadding="0" cellspacing="0" style="margin:0 0 16px;">'


def write_html(report: Report, picture: str | None) -> str:
    """Return the report as an HTML page.

    Args:
        report: What it says.
        picture: Where the picture of the losses is, or None.
    """
    parts = [_summary_table(report), _picture(picture), _losses_table(report)]
    return _PAGE.format(
        subject=escape(report.subject),
        sentence=escape(report.sentence),
        content="\n".join(part for part in parts if part),
        font=_FONT,
        card=WIDTH + 42,
    )


def _summary_table(report: Report) -> str:
    if not report.summary:
        return ""
    rows = (
        f'<tr><td class="label" width="34%" valign="top" style="{_CELL} color:#6b6963;">{escape(label)}</td>'
        f'<td valign="top" style="{_CELL} color:#1f1e1c; overflow-wrap:anywhere; word-break:break-word;">'
        f"{escape(text)}</td></tr>"
        for label, text in report.summary
    )
    return "\n".join([_TABLE.format(role="presentation"), *rows, "</table>"])


def _picture(source: str | None) -> str:
    if source is None:
        return ""
    style = "display:block; width:100%; max-width:100%; height:auto; border-radius:4px; margin:0 0 16px;"
    text = "The losses over the epochs; the numbers are in the table."
    return f'<img src="{escape(source)}" width="{WIDTH}" alt="{text}" style="{style}">'


def _losses_table(report: Report) -> str:
    if not report.losses:
        return ""
    shown = report.losses[-EPOCHS_SHOWN:]
    has_validation = any(one.validation is not None for one in shown)
    names = ["Epoch", "Training loss", *(["Validation loss"] if has_validation else [])]
    head = "".join(f'<th align="right" class="label" style="{_CELL} color:#6b6963;">{name}</th>' for name in names)
    lines = [_TABLE.format(role="table"), f"<tr>{head}</tr>"]
    for one in shown:
        is_best = one.epoch == report.best_epoch
        numbers = [f"{one.epoch}{' (best)' * is_best}", f"{one.training:.4f}"]
        numbers += ["" if one.validation is None else f"{one.validation:.4f}"] if has_validation else []
        style = (
            f"{_CELL} font-variant-numeric:tabular-nums; color:{'#1a7f37; font-weight:600' if is_best else '#1f1e1c'};"
        )
        cells = "".join(f'<td align="right" style="{style}">{number}</td>' for number in numbers)
        row = '<tr class="best">' if is_best else "<tr>"
        lines.append(f"{row}{cells}</tr>")
    return "\n".join([*lines, "</table>"])
