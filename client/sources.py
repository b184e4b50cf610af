"""Where the official archives of each data set come from, on which terms, and whom to cite."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One official file."""

    file: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set comes from, and on which terms."""

    name: str
    """As in `data.name`."""
    page: str
    """Where a person finds the files in a browser."""
    archives: tuple[Archive, ...]
    licence: str
    citation: str


def _uci(name: str, number: int, title: str, citation: str) -> Source:
    return Source(
        name=name,
        page=f"https://archive.ics.uci.edu/dataset/{number}/{title}",
        archives=(Archive(file=f"{title}.zip", url=f"https://archive.ics.uci.edu/static/public/{number}/{title}.zip"),),
        licence="CC BY 4.0",
        citation=citation,
    )


# fmt: off
SOURCES = (
    Source(name="utd-mhad", page="https://personal.utdallas.edu/~kehtar/UTD-MHAD.html", licence="none stated, free to download",
           archives=(Archive(file="Inertial.zip", url="https://www.utdallas.edu/~kehtar/UTD-MAD/Inertial.zip"),
                     Archive(file="Skeleton.zip", url="https://www.utdallas.edu/~kehtar/UTD-MAD/Skeleton.zip")),
           citation="Chen, Jafari, Kehtarnavaz: UTD-MHAD: A multimodal dataset for human action recognition utilizing a depth camera and a "
                    "wearable inertial sensor. ICIP 2015"),
    _uci("dsads", 256, "daily+and+sports+activities",
         "Altun, Barshan, Tunçel: Comparative study on classifying human activities with miniature inertial and magnetic sensors. "
         "Pattern Recognition 43(10), 2010. doi:10.24432/C5C59F"),
    _uci("hapt", 341, "smartphone+based+recognition+of+human+activities+and+postural+transitions",
         "Reyes-Ortiz, Oneto, Samà, Parra, Anguita: Transition-aware human activity recognition using smartphones. Neurocomputing 171, "
         "2016. doi:10.24432/C54G7M"),
    _uci("wisdm2019", 507, "wisdm+smartphone+and+smartwatch+activity+and+biometrics+dataset",
         "Weiss, Yoneda, Hayajneh: Smartphone and smartwatch-based biometrics using activities of daily living. IEEE Access 7, 2019. "
         "doi:10.24432/C5HK59"),
    # Only the corrected files: the whole article holds every trial twice, and videos. And this host: figshare.com itself answers
    # programs with a riddle for browsers (HTTP 202).
    Source(name="umafall", page="https://figshare.com/articles/dataset/UMA_ADL_FALL_Dataset_zip/4214283", licence="CC BY 4.0",
           archives=(Archive(file="UMAFall_Dataset_corrected_version.zip", url="https://ndownloader.figshare.com/files/43076140"),),
           citation="Casilari, Santoyo-Ramón, Cano-García: UMAFall: A multisensor dataset for the research on automatic fall detection. "
                    "Procedia Computer Science 110, 2017. doi:10.6084/m9.figshare.4214283"),
    Source(name="usc-had", page="https://sipi.usc.edu/had/", licence="none stated, free to download",
           archives=(Archive(file="USC-HAD.zip", url="https://sipi.usc.edu/had/USC-HAD.zip"),),
           citation="Zhang, Sawchuk: USC-HAD: A daily activity dataset for ubiquitous activity recognition using wearable sensors. "
                    "UbiComp 2012"),
    _uci("pamap2", 231, "pamap2+physical+activity+monitoring",
         "Reiss, Stricker: Introducing a new benchmarked dataset for activity monitoring. ISWC 2012. doi:10.24432/C5NW2H"),
    _uci("mhealth", 319, "mhealth+dataset",
         "Banos, Garcia, Holgado-Terriza, Damas, Pomares, Rojas, Saez, Villalonga: mHealthDroid: a novel framework for agile development "
         "of mobile health applications. IWAAL 2014. doi:10.24432/C5TW22"),
)
# fmt: on
