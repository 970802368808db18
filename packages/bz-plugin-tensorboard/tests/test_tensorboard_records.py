"""The bytes of records."""

import io

from hypothesis import given
from hypothesis import strategies as st
from torch.utils.tensorboard import RecordWriter

from bz_plugin_tensorboard.records import record


@given(st.binary(max_size=300))
def test_record_has_the_bytes_of_upstream(data: bytes) -> None:
    written = io.BytesIO()
    RecordWriter(written).write(data)
    assert record(data) == written.getvalue()
