"""The load of the devices, looked at by a thread."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from profiler_runs import SlowLoader, file_size_limit, names, profiler, samples, stop_at, summary, train

from bz.plugins import Plugin
from bz_plugin_profiler.readings import Host, NvidiaGpu, Reading, open_devices
from bz_plugin_profiler.samples import HEADER, SampleFile, summarize
from bz_plugin_profiler.sampling import THREAD_NAME, DeviceSampler


def sampling_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


class Threads(Plugin):
    """Notes the threads that take samples, at each batch."""

    def __init__(self) -> None:
        self.seen: list[list[threading.Thread]] = []

    def end_training_batch(self, context: Any) -> None:
        self.seen.append(sampling_threads())


def test_samples_are_rows_of_the_host(tmp_path: Path) -> None:
    train(profiler(devices_every="0.1 s"), loader=SlowLoader(0.02), run_dir=tmp_path)
    rows = [row for row in samples(tmp_path) if row["device"] == "host"]
    assert rows
    elapsed = [float(row["elapsed_seconds"]) for row in rows]
    assert elapsed == sorted(set(elapsed))
    assert all(0 <= float(row["utilization_percent"]) <= 100 for row in rows)
    assert all(float(row["process_memory_mib"]) > 50 for row in rows)  # torch is in it
    assert all(float(row["memory_used_mib"]) > 0 for row in rows)


def test_summary_has_the_range_of_each_value(tmp_path: Path) -> None:
    train(profiler(devices_every="0.1 s"), loader=SlowLoader(0.02), run_dir=tmp_path)
    host = summary(tmp_path)["devices"]["host"]
    assert f"{os.cpu_count()} cores" in host["description"]
    values = [float(row["process_memory_mib"]) for row in samples(tmp_path) if row["device"] == "host"]
    assert host["process_memory_mib"]["min"] == min(values)
    assert host["process_memory_mib"]["max"] == max(values)
    assert min(values) <= host["process_memory_mib"]["mean"] <= max(values)


def test_run_shorter_than_the_interval_has_one_sample(tmp_path: Path) -> None:
    train(profiler(devices_every="1 h"), run_dir=tmp_path)
    assert [row["device"] for row in samples(tmp_path)].count("host") == 1


def test_thread_is_a_daemon_and_ends_with_the_session(tmp_path: Path) -> None:
    threads = Threads()
    train(profiler(devices_every="0.1 s"), threads, run_dir=tmp_path)
    assert all(len(seen) == 1 and seen[0].daemon for seen in threads.seen)
    assert sampling_threads() == []


def test_thread_ends_when_the_run_fails(tmp_path: Path) -> None:
    loader = [*SlowLoader(0.0).batches[:3], "no batch"]
    with pytest.raises(Exception, match="batch"):
        train(profiler(devices_every="0.1 s"), loader=loader, run_dir=tmp_path)
    assert sampling_threads() == []
    assert names(tmp_path) == ["devices.csv", "summary.json"]


def test_devices_are_off(tmp_path: Path) -> None:
    threads = Threads()
    train(profiler(), threads, run_dir=tmp_path)
    assert [one for seen in threads.seen for one in seen] == []
    assert names(tmp_path) == ["summary.json"]
    assert "devices" not in summary(tmp_path)


def test_new_run_in_the_same_folder_begins_anew(tmp_path: Path) -> None:
    for _ in range(2):
        train(profiler(devices_every="1 h"), run_dir=tmp_path)
    assert [row["device"] for row in samples(tmp_path)].count("host") == 1


def test_memory_is_that_of_the_process_and_its_workers(tmp_path: Path) -> None:
    data = torch.utils.data.TensorDataset(torch.randn(64, 3), torch.randn(64, 1))
    loader = torch.utils.data.DataLoader(data, 4, num_workers=2, persistent_workers=True)
    for name, batches in (("none", None), ("workers", loader)):
        train(profiler(devices_every="0.1 s"), loader=batches, epochs=4, run_dir=tmp_path / name)
    most = {
        name: summary(tmp_path / name)["devices"]["host"]["process_memory_mib"]["max"] for name in ("workers", "none")
    }
    assert most["workers"] > 1.5 * most["none"]


def test_resume_appends_and_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "profile" / "devices.csv"
    train(profiler(devices_every="0.1 s"), stop_at(20), loader=SlowLoader(0.02), run_dir=tmp_path)
    before = path.read_bytes()
    train(profiler(devices_every="0.1 s"), loader=SlowLoader(0.02), run_dir=tmp_path, resume=tmp_path)
    after = path.read_bytes()
    saved = saved_position(tmp_path / "state" / "epoch_2_step_20.pth")
    size_bytes = int(saved["size_bytes"])
    assert len(HEADER) < size_bytes <= len(before)
    assert after[:size_bytes] == before[:size_bytes]
    elapsed = [float(row["elapsed_seconds"]) for row in samples(tmp_path) if row["device"] == "host"]
    assert elapsed == sorted(set(elapsed))
    num_kept = before[:size_bytes].count(b",host,")
    assert elapsed[num_kept] > saved["elapsed_seconds"]  # the clock goes on, too
    assert after.count(HEADER) == 1


def saved_position(checkpoint: Path) -> dict[str, float]:
    """Return what a checkpoint says about the file of samples."""
    state = torch.load(checkpoint, weights_only=True)["bz"]["plugins"]["profiler"]["devices"]
    return dict(state)


def test_file_of_samples_keeps_whole_rows_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    file = SampleFile(path)
    file.add(1.0, [("host", Reading(10.0))])
    size = file.size_bytes
    file.add(2.0, [("host", Reading(20.0))])
    file.close()
    SampleFile(path, size + 5).close()
    assert path.read_bytes() == HEADER + b"1.00,host,10.00,,,,\n"
    assert path.stat().st_size == size


@pytest.mark.parametrize("content", [b"", b"something,else\n1,2\n"])
def test_file_of_samples_that_is_another_begins_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "devices.csv"
    path.write_bytes(content)
    SampleFile(path, 1000).close()
    assert path.read_bytes() == HEADER


def test_file_of_samples_on_a_full_disk_ends_with_a_whole_row(tmp_path: Path) -> None:
    file = SampleFile(tmp_path / "devices.csv")
    with file_size_limit(len(HEADER) + 5), pytest.raises(OSError, match="File too large"):
        file.add(1.0, [("host", Reading(10.0))])
    file.add(2.0, [("host", Reading(20.0))])
    file.close()
    assert (tmp_path / "devices.csv").read_bytes() == HEADER + b"2.00,host,20.00,,,,\n"


def test_full_disk_of_the_thread_is_reported_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sampler = DeviceSampler(SampleFile(tmp_path / "devices.csv"), 0.1, 0.0)
    with file_size_limit(len(HEADER) + 5):
        time.sleep(0.3)
    with pytest.raises(OSError, match="File too large"):
        sampler.check()
    sampler.check()  # said once
    sampler.stop()
    assert (tmp_path / "devices.csv").read_bytes() == HEADER


def test_unwritable_folder_is_reported_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "profile").write_text("in the way", encoding="utf-8")
    result = train(profiler(devices_every="0.1 s"), run_dir=tmp_path, strict=False)
    assert result.status == "completed"
    assert [message for message in caplog.messages if "plugin 'profiler' failed" in message] != []
    assert sampling_threads() == []


class NoDriverError(Exception):
    """What NVML raises."""


class Nvml:
    """NVIDIA's library as pynvml shows it: two GPUs, of which the second tells less."""

    NVML_TEMPERATURE_GPU = 0
    NVMLError = NoDriverError

    def __init__(self, *, has_driver: bool = True) -> None:
        self.has_driver = has_driver
        self.is_open = False

    def nvmlInit(self) -> None:  # noqa: N802 - its name
        if not self.has_driver:
            raise NoDriverError
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index == 2:
            raise NoDriverError
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return f"NVIDIA Example {handle}"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return type("Rates", (), {"gpu": 97, "memory": 40})

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return type("Memory", (), {"used": 3 * 2**30, "total": 8 * 2**30})

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if handle == 1:
            raise NoDriverError
        return 350_500


def test_gpus_are_read_through_nvml() -> None:
    nvml = Nvml()
    with open_devices(nvml) as devices:
        assert nvml.is_open
        assert [device.key for device in devices] == ["host", "gpu0", "gpu1"]
        assert devices[1].description == "NVIDIA Example 0"
        assert devices[1].read() == Reading(97, 3072.0, None, 61, 350.5)
        assert devices[2].read() == Reading(97, 3072.0, None, 61, None)
    assert not nvml.is_open


def test_host_is_read_without_a_driver() -> None:
    with open_devices(Nvml(has_driver=False)) as devices:
        assert [type(device) for device in devices] == [Host]


def test_rows_of_a_gpu_leave_out_what_it_does_not_tell(tmp_path: Path) -> None:
    gpu = NvidiaGpu(1, Nvml())
    file = SampleFile(tmp_path / "devices.csv")
    file.add(2.0, [(gpu.key, gpu.read())])
    file.close()
    assert (tmp_path / "devices.csv").read_bytes() == HEADER + b"2.00,gpu1,97.00,3072.00,,61.00,\n"
    assert set(summarize(tmp_path / "devices.csv")["gpu1"]) == {
        "utilization_percent",
        "memory_used_mib",
        "temperature_celsius",
    }
