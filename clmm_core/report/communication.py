"""What a run sent and received, as its rounds counted it: by part of the model, and until it was as good as it got."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clmm_core.federated.arrays import FUSION
from clmm_core.federated.traffic import WORDS, Traffic
from clmm_core.report.lines import NOTHING, size
from clmm_core.report.records import RoundRecord, Stage

TRAINING: tuple[Stage, ...] = ("pretrain", "finetune", "selftrain")
NEARLY = 0.9
"""Share of the last validation accuracy that counts as nearly there."""
PART_NAMES = {FUSION: "shared by all sensors", WORDS: "tasks and replies"}


@dataclass(frozen=True, kw_only=True)
class PartBytes:
    """What one part of the model cost."""

    part: str
    """A modality, `FUSION` for what belongs to none, or `WORDS` for tasks and replies."""
    down_bytes: int
    """From the server to all hosts."""
    up_bytes: int
    """From all hosts to the server."""


@dataclass(frozen=True, kw_only=True)
class Communication:
    """What a run sent and received: arrays and JSON, without what the transport adds."""

    training: tuple[PartBytes, ...]
    """Of all rounds of training, to the final model: modalities in the model's order, then `FUSION`, then `WORDS`."""
    training_bytes: int
    """Its sum, down and up."""
    device_round_bytes: float
    """The same a round and device: the mean over all that took part. A host sends once for all its devices."""
    nearly_final_bytes: int | None
    """Training's bytes until the validation accuracy first reached `NEARLY` of its last value; None where nobody looked."""
    other_bytes: int
    """Of all other messages: profiles, normalisation, quality, looks at validation subjects, evaluation."""


def communication_of(rounds: Sequence[RoundRecord]) -> Communication | None:
    """Return what all steps of a run sent and received; None where no round of training counted it."""
    trained = [record for record in rounds if record.stage in TRAINING and record.traffic]
    if not trained:
        return None
    whole = sum(map(_training_bytes, trained))
    return Communication(
        training=training_parts(trained),
        training_bytes=whole,
        device_round_bytes=whole / max(1, sum(record.num_devices for record in trained)),
        nearly_final_bytes=_nearly_final_bytes(trained),
        other_bytes=sum(_bytes(each) for record in rounds for each in record.traffic) - whole,
    )


def training_parts(rounds: Iterable[RoundRecord]) -> tuple[PartBytes, ...]:
    """Return what training cost in these rounds, by part."""
    counted = [each for record in rounds for each in _training(record)]
    names = dict.fromkeys(name for each in counted for name in (*each.down, *each.up))
    last = [name for name in (FUSION, WORDS) if name in names]
    return tuple(
        PartBytes(
            part=name,
            down_bytes=sum(each.down.get(name, 0) for each in counted),
            up_bytes=sum(each.up.get(name, 0) for each in counted),
        )
        for name in (*(name for name in names if name not in last), *last)
    )


def _training(record: RoundRecord) -> list[Traffic]:
    """Return the messages of a step that train; after some rounds others look at validation subjects."""
    return [each for each in record.traffic if each.message == f"train.{record.stage}"]


def _bytes(traffic: Traffic) -> int:
    return sum(traffic.down.values()) + sum(traffic.up.values())


def _training_bytes(record: RoundRecord) -> int:
    return sum(map(_bytes, _training(record)))


def _nearly_final_bytes(trained: Sequence[RoundRecord]) -> int | None:
    looks = [record.validation_accuracy for record in trained if record.validation_accuracy is not None]
    if not looks:
        return None
    until = next(i for i, each in enumerate(trained) if (each.validation_accuracy or 0.0) >= NEARLY * looks[-1])
    return sum(map(_training_bytes, trained[: until + 1]))


def communication_in_words(found: Communication, update_bits: int) -> str:
    """Return what training cost, in sentences; what is counted, and what is not."""
    down, up = (size(sum(getattr(each, f"{way}_bytes") for each in found.training)) for way in ("down", "up"))
    how = "as they are" if update_bits == 32 else f"in {update_bits} bits a value, and what that leaves out goes with the next one"
    nearly = (
        "" if found.nearly_final_bytes is None else f"{NEARLY:.0%} of the last validation accuracy took {size(found.nearly_final_bytes)}. "
    )
    return (
        f"To the final model, training sent {down} down to hosts and {up} up to the server: {size(found.device_round_bytes)} a round and"
        f" device, where a host sends once for all its devices. Updates go up {how}. {nearly}All other messages, from profiles to"
        f" evaluation, had {size(found.other_bytes)}. Counted are arrays and JSON, not what Flower, TLS and TCP add."
    )


def communication_table(rounds: Sequence[RoundRecord]) -> tuple[list[str], list[list[str]]]:
    """Return what the columns are of, two for each (down and up), and the rows: each part of the model, and all."""
    stages = [stage for stage in TRAINING if any(record.stage == stage and record.traffic for record in rounds)]
    of_stages = [[record for record in rounds if record.stage == stage and record.traffic] for stage in stages]
    every_round = [record for records in of_stages for record in records]
    rows = {each.part: [PART_NAMES.get(each.part, each.part)] for each in training_parts(every_round)}
    whole = ["all"]
    for records, num_rounds in (*((records, len(records)) for records in of_stages), (every_round, 1)):
        parts = {each.part: (each.down_bytes, each.up_bytes) for each in training_parts(records)}
        for part, row in rows.items():
            row += [size(count / num_rounds) if count else NOTHING for count in parts.get(part, (0, 0))]
        whole += [size(sum(counts) / num_rounds) for counts in zip(*parts.values(), strict=True)]
    return [*(f"{stage}, a round" for stage in stages), "all rounds"], [*rows.values(), whole]
