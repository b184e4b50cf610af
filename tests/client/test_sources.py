from pathlib import Path

from client.sources import SOURCES
from clmm_core.data.fleet import NAMES


def test_every_source_is_a_data_set_of_ours_with_secure_addresses() -> None:
    names = [source.name for source in SOURCES]
    assert len(names) == len(set(names))
    assert set(names) < set(NAMES)
    for source in SOURCES:
        assert source.page.startswith("https://")
        assert source.licence
        assert source.citation
        for archive in source.archives:
            assert archive.url.startswith("https://")
            assert archive.file.endswith(".zip")
            assert Path(archive.file).name == archive.file
