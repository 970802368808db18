import pytest

from bz_plugin_console.wording import duration, encodable, number, one_line, rate


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.12345, "0.1235"),
        (-0.5, "-0.5000"),
        (0.000012345, "1.23e-05"),
        (12345.678, "12,345.7"),
        (1.5e9, "1.50e+09"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
    ],
)
def test_number_of_any_size_stays_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (4.2, "4.20"), (12345.6, "12,346")])
def test_rate_has_as_many_digits_as_matter(value: float | None, text: str) -> None:
    assert rate(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.04 s"),
        (9.4, "9.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (83, "1 min 23 s"),
        (3 * 3600 + 12 * 60 + 5, "3 h 12 min"),
        (2 * 86400 + 5 * 3600, "2 d 5 h"),
    ],
)
def test_duration_has_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_line_joins_lines_and_defuses_control_codes() -> None:
    assert one_line("size mismatch:\n  got \x1b[31m3") == "size mismatch: got ?[31m3"


def test_one_line_is_cut_at_the_limit() -> None:
    assert one_line("x" * 20, limit=10) == "xxxxxxx..."


@pytest.mark.parametrize(("encoding", "text"), [("ascii", "fl?che ?"), ("utf-8", "flèche →"), (None, "fl?che ?")])
def test_encodable_replaces_only_what_cannot_be_shown(encoding: str | None, text: str) -> None:
    assert encodable("flèche →", encoding) == text
