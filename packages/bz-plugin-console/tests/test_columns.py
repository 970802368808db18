from bz_plugin_console.columns import Column, columns_that_fit, join_row

COLUMNS = [Column("epoch", 0), Column("loss", 2, 8), Column("val loss", 1, 8), Column("time", 3, 10)]


def test_columns_without_a_limit_are_all_shown() -> None:
    assert columns_that_fit(COLUMNS, None) == [0, 1, 2, 3]


def test_columns_in_a_narrow_room_are_the_most_important_ones_in_their_order() -> None:
    assert columns_that_fit(COLUMNS, 25) == [0, 1, 2]
    assert columns_that_fit(COLUMNS, 24) == [0, 2]
    assert columns_that_fit(COLUMNS, 5) == [0]


def test_columns_in_no_room_at_all_are_one() -> None:
    assert columns_that_fit(COLUMNS, 2) == [0]


def test_row_is_aligned_under_its_heading() -> None:
    heading = join_row(COLUMNS, [column.title for column in COLUMNS], [0, 2])
    row = join_row(COLUMNS, ["1/9", "0.3", "0.4", "2 s"], [0, 2])
    assert [heading, row] == ["epoch  val loss", "  1/9       0.4"]
