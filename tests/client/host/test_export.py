import numpy as np
import pytest

from client.host.erasure import EXPORTS
from client.host.export import export
from client.host.labels import Label, put_label
from client.host.sessions import recordings_of
from clmm_core.data.datasets.folder import Folder
from clmm_core.errors import DataError

NOW = 1_800_000_000_000_000_000


@pytest.fixture
def recorded(store, header, chunk):
    """Two subjects, one with a gap, a second sensor and labels."""
    watch = store.register(header(), NOW)[1]
    phone = store.register(header("gyroscope", device="phone"), NOW)[1]
    ben = store.register(header(subject="ben"), NOW)[1]
    store.add([*(chunk(watch, number) for number in (0, 1, 4, 5)), *(chunk(phone, number) for number in range(1, 6))], NOW)
    store.add([chunk(ben, number) for number in range(3)], NOW)
    spans = [(chunk(watch, 0).t0_ns, chunk(watch, 3).t0_ns), (chunk(watch, 4).t0_ns, chunk(watch, 5).end_ns)]
    for activity, (start_ns, end_ns) in zip(("walk", "yes"), spans, strict=True):
        put_label(
            store.connection, Label(subject="anna", recording="monday", activity=activity, start_ns=start_ns, end_ns=end_ns, source=1)
        )
    return store


def test_the_folder_loader_reads_what_the_store_has(recorded):
    folder, left_out = export(recorded.connection, recorded.path.parent)
    assert folder == recorded.path.parent / EXPORTS
    assert not left_out
    dataset = Folder(folder)
    assert dataset.subjects() == ("anna", "ben")
    for subject in dataset.subjects():
        for found, expected in zip(dataset.recordings(subject), recordings_of(recorded.connection, subject), strict=True):
            assert found.streams.keys() == expected.streams.keys()
            for modality, stream in expected.streams.items():
                read = found.streams[modality]
                np.testing.assert_array_equal(read.samples, stream.samples)
                assert (read.rate_hz, read.unit) == (stream.rate_hz, stream.unit)
                assert read.start_s == pytest.approx(stream.start_s, abs=1e-6)  # seconds since 1970 have no more digits
            assert [each.label for each in found.intervals] == [each.label for each in expected.intervals]
            for read_interval, interval in zip(found.intervals, expected.intervals, strict=True):
                assert (read_interval.start_s, read_interval.end_s) == pytest.approx((interval.start_s, interval.end_s), abs=1e-6)


def test_an_export_takes_the_place_of_the_one_before(recorded):
    export(recorded.connection, recorded.path.parent)
    folder, _ = export(recorded.connection, recorded.path.parent, "ben")
    assert [each.name for each in folder.iterdir()] == ["ben"]


def test_only_its_owner_can_read_it(recorded):
    folder, _ = export(recorded.connection, recorded.path.parent)
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("subject", ["", "nobody"])
def test_nothing_to_export_is_said(store, subject):
    with pytest.raises(DataError, match=r"expected recordings of (anybody|subject 'nobody') to export, found none"):
        export(store.connection, store.path.parent, subject)
