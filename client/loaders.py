"""What `data.name` can be: one row a loader, with where its recordings come from and how its files are called."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Loader:
    """A row of `clmm data list`."""

    name: str
    subjects: str
    classes: str
    source: str
    met_archive: str
    """Whether the loader has read the real recordings, and how much of them."""
    needs_path: bool = True
    modalities: str = ""
    """Said here only where the loader cannot know them without recordings."""
    file: str = ""
    """A regular expression that finds this set's files by their official names."""


LOADERS = (
    Loader(
        name="spar",
        subjects="10",
        classes="7 shoulder exercises",
        source="comes with the pip package seglearn",
        met_archive="yes",
        needs_path=False,
    ),
    Loader(
        name="utd-mhad",
        subjects="8",
        classes="27 actions",
        source="clmm data fetch utd-mhad",
        met_archive="yes",
        file=r"a\d+_s\d+_t\d+_(inertial|skeleton)\.mat",
    ),
    Loader(
        name="dsads",
        subjects="8",
        classes="19 daily and sports activities",
        source="clmm data fetch dsads",
        met_archive="yes, 20 of 60 segments",
        file=r"a\d\d/p\d/s\d\d\.txt",
    ),
    Loader(
        name="hapt",
        subjects="30",
        classes="6 activities, 6 transitions",
        source="clmm data fetch hapt",
        met_archive="yes",
        file=r"(acc|gyro)_exp\d+_user\d+\.txt",
    ),
    Loader(
        name="wisdm2019",
        subjects="51",
        classes="18 activities",
        source="clmm data fetch wisdm2019",
        met_archive="yes, 8 of 51 subjects",
        file=r"data_\d+_(accel|gyro)_(phone|watch)\.txt",
    ),
    Loader(
        name="umafall",
        subjects="19",
        classes="12 activities, 3 falls",
        source="clmm data fetch umafall",
        met_archive="yes, 8 of 19 subjects",
        file=r"UMAFall_Subject_\d+_(ADL|Fall)_[^/]*\.csv",
    ),
    Loader(
        name="usc-had",
        subjects="14",
        classes="12 activities",
        source="clmm data fetch usc-had",
        met_archive="no",
        file=r"Subject\d+/a\d+t\d+\.mat",
    ),
    Loader(
        name="pamap2",
        subjects="9",
        classes="18 activities",
        source="clmm data fetch pamap2",
        met_archive="no",
        file=r"Protocol/subject\d+\.dat",
    ),
    Loader(
        name="mhealth",
        subjects="10",
        classes="12 activities",
        source="clmm data fetch mhealth",
        met_archive="no",
        file=r"mHealth_subject\d+\.log",
    ),
    Loader(
        name="folder",
        subjects="your",
        classes="your classes",
        source="your own CSV or Parquet files, see docs/data.md",
        met_archive="-",
        modalities="any",
    ),
    Loader(
        name="synthetic",
        subjects="any number of",
        classes="6 activities",
        source="made from the run's seed, for scale and tests; never for an accuracy claim",
        met_archive="-",
        needs_path=False,
    ),
)
