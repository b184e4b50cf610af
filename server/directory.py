"""Which host serves which device: looked up again before every question, because hosts come, go and change their ids."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clmm_core.data.fleet import DataConfig
from clmm_core.errors import CodeMismatchError, ConfigError, DataError, RoundFailedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.messages import DeviceProfile, HostProfile
from clmm_core.federated.source import client_source
from clmm_core.federated.traffic import WORDS, Traffic, array_bytes, word_bytes
from clmm_core.report.lines import by_reason, listed
from clmm_core.training.tasks import ProfileTask
from server.balance import balanced
from server.hosts import Answer, Enough, Hosts, Question

UNSERVED = "no connected host serves it"
TaskFor = Callable[[tuple[str, ...]], Any]
"""Makes a host's task from the devices it is asked about."""


@dataclass
class Directory:
    """The hosts that answered, by device, and the profiles they gave."""

    hosts: Hosts
    data: DataConfig
    min_reply_share: float
    profiles: dict[int, HostProfile] = field(default_factory=dict)
    """In the order of their devices, because node ids are random."""
    unanswered: list[str] = field(default_factory=list)
    """Hosts that are connected but did not give a profile, and why."""
    traffic: list[Traffic] = field(default_factory=list)
    """What was sent and received, a question each, until it is taken."""

    def refresh(self) -> None:
        """Profile hosts that are new and forget those that left.

        A new host takes over the devices it serves: a host that restarted is here under two ids until Flower misses its heartbeat.

        Raises:
            CodeMismatchError: every host runs other client code; one among others is left out.
            DataError: two hosts that are new serve the same subject.
            RoundFailedError: fewer hosts answered than `min-reply-share` wants.
        """
        names = self.hosts.names()
        known = {host: profile for host, profile in self.profiles.items() if host in names}
        new = [name for name in names if name not in known]
        arrived: dict[int, HostProfile] = {}
        self.unanswered = []
        if new:
            questions = {host: Question(ProfileTask(data=self.data), {}) for host in new}
            answers, failures = self._asked("query.profile", questions, HostProfile)
            arrived = {host: answer.reply for host, answer in answers.items()}
            strangers = _of_other_code(arrived)
            if strangers and not known and len(strangers) == len(arrived):
                raise CodeMismatchError(next(iter(strangers.values())))
            arrived = {host: profile for host, profile in arrived.items() if host not in strangers}
            failures |= strangers
            self._require_replies("query.profile", len(names), len(known) + len(arrived), failures)
            self.unanswered = [f"query.profile: host {host} did not answer: {_last_line(why)}" for host, why in failures.items()]
        _check_served_once(arrived)
        taken_over = {device.device for profile in arrived.values() for device in profile.devices}
        self.profiles = _in_order({host: _without(profile, taken_over) for host, profile in known.items()} | arrived)

    @property
    def devices(self) -> dict[str, DeviceProfile]:
        """Every device that can be used, by name, ascending."""
        found = {device.device: device for profile in self.profiles.values() for device in profile.devices}
        return dict(sorted(found.items()))

    @property
    def num_hosts(self) -> int:
        """Hosts that serve at least one device."""
        return sum(bool(profile.devices) for profile in self.profiles.values())

    @property
    def shares_data(self) -> bool:
        """Whether every host can serve any device, as in a simulation."""
        return all(profile.shares_data for profile in self.profiles.values())

    @property
    def takers(self) -> tuple[int, ...]:
        """Hosts that recognise with the run's model."""
        return tuple(host for host, profile in self.profiles.items() if profile.takes_model)

    def left_out(self) -> list[str]:
        """Return what hosts could not use, and why, in the order of devices, then hosts that gave no profile."""
        left_out = sorted((each for profile in self.profiles.values() for each in profile.left_out), key=lambda each: each.device)
        return [each.reason for each in left_out] + self.unanswered

    def modalities(self) -> dict[str, DeviceProfile]:
        """Return each modality that some device has, with one such device, in the data set's order.

        Raises:
            ConfigError: two devices disagree about a modality's channels or samples.
        """
        order = list(dict.fromkeys(name for profile in self.profiles.values() for name in profile.modalities))
        owners: dict[str, DeviceProfile] = {}
        for name in order:
            for device in self.devices.values():
                if name not in device.modalities:
                    continue
                first, here = owners.setdefault(name, device).modalities[name], device.modalities[name]
                if (first.channels, first.time_steps) != (here.channels, here.time_steps):
                    raise ConfigError(
                        f"modality '{name}': device '{owners[name].device}' has windows of {first.channels} channels x {first.time_steps} "
                        f"samples, device '{device.device}' of {here.channels} x {here.time_steps}; they cannot share an encoder"
                    )
        return owners

    def ask(
        self, message_type: str, devices: Sequence[str], task_for: TaskFor, arrays: Arrays, reply_kind: type, waits_for: int = 0
    ) -> tuple[list[Answer], list[str]]:
        """Ask each host about its devices; return the answers in the order of devices, and what is not in them and why.

        With `waits_for`, the hosts of so many devices are enough, and the others are not waited for.

        Raises:
            RoundFailedError: fewer hosts answered than `min-reply-share` wants, or nobody serves these devices.
        """
        self.refresh()
        wanted = set(devices)
        served = self._shares(wanted)
        if not served:
            raise RoundFailedError(f"{message_type}: none of the {len(devices)} devices asked for is served by a connected host")
        questions = {host: Question(task_for(here), arrays) for host, here in served.items()}

        def enough(hosts: Collection[int]) -> bool:
            return sum(len(served[host]) for host in hosts) >= waits_for

        answers, failures = self._asked(message_type, questions, reply_kind, enough if waits_for else None)
        self._require_replies(message_type, len(answers) + len(failures), len(answers), failures)
        unserved = sorted(wanted.difference(*served.values()))
        left_out = self.unanswered + [f"{message_type}: {line}" for line in by_reason((device, UNSERVED) for device in unserved)]
        for host, why in failures.items():
            left_out.append(f"{message_type}: host {host} with device(s) {listed(served[host])} did not answer: {_last_line(why)}")
        return [replace(answer, devices=served[host]) for host, answer in answers.items()], left_out

    def take_traffic(self) -> tuple[Traffic, ...]:
        """Return what was sent and received since this was called last, added up by message in the order of their first."""
        taken, self.traffic = self.traffic, []
        of_each = {name: [each for each in taken if each.message == name] for name in dict.fromkeys(each.message for each in taken)}
        return tuple(
            Traffic(message=name, down=_added(each.down for each in those), up=_added(each.up for each in those))
            for name, those in of_each.items()
        )

    def _asked(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        """Ask, and count the bytes of questions and answers; see `Hosts`."""
        answers, failures = self.hosts.ask(message_type, questions, reply_kind, enough)
        sent = {id(question.arrays): array_bytes(question.arrays) for question in questions.values()}  # hosts are sent the same ones
        down = _added(sent[id(each.arrays)] | {WORDS: word_bytes(each.task)} for each in questions.values())
        up = _added(array_bytes(each.arrays) | {WORDS: word_bytes(each.reply)} for each in answers.values())
        self.traffic.append(Traffic(message=message_type, down=down, up=up))
        return answers, failures

    def _shares(self, wanted: set[str]) -> dict[int, tuple[str, ...]]:
        """Return which of these devices each host is to be asked about; of hosts that share their data all have about as many windows."""
        shares = {host: [each.device for each in profile.devices if each.device in wanted] for host, profile in self.profiles.items()}
        windows = {each.device: each.num_windows for profile in self.profiles.values() for each in profile.devices}
        spread = balanced({host: here for host, here in shares.items() if self.profiles[host].shares_data}, windows)
        return {host: here for host, devices in shares.items() if (here := spread.get(host, tuple(sorted(devices))))}

    def _require_replies(self, message_type: str, asked: int, answered: int, failures: Mapping[int, str]) -> None:
        if answered < max(1.0, self.min_reply_share * asked):
            reasons = "; ".join(dict.fromkeys(_last_line(why) for why in failures.values()))
            raise RoundFailedError(
                f"{message_type}: expected answers of at least {self.min_reply_share:.0%} of {asked} host(s), found {answered}: {reasons}"
            )


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _last_line(why: str) -> str:
    """Return what a traceback ends with."""
    return why.strip().splitlines()[-1].strip() if why.strip() else "no reason given"


def _in_order(profiles: Mapping[int, HostProfile]) -> dict[int, HostProfile]:
    """Return the profiles by their first device; hosts without a device come first."""

    def first(item: tuple[int, HostProfile]) -> tuple[str, tuple[str, ...]]:
        return min((device.device for device in item[1].devices), default=""), item[1].modalities

    return dict(sorted(profiles.items(), key=first))


def _without(profile: HostProfile, devices: set[str]) -> HostProfile:
    return replace(profile, devices=tuple(each for each in profile.devices if each.device not in devices))


def _of_other_code(profiles: Mapping[int, HostProfile]) -> dict[int, str]:
    """Return which hosts run other client code than this server sends them, and what to do."""
    return {
        host: f"host {host} runs client code {profile.source}, this server expects {client_source()}: another checkout or version "
        "answered; install the same version on both, and start the SuperLink from the folder of the app that is run"
        for host, profile in profiles.items()
        if profile.source != client_source()
    }


def _check_served_once(profiles: dict[int, HostProfile]) -> None:
    seen: dict[str, int] = {}
    for host, profile in profiles.items():
        for device in profile.devices:
            if device.device in seen:
                raise DataError(
                    f"subject '{device.device}' is served by both host {seen[device.device]} and host {host}: give each subject one host"
                )
            seen[device.device] = host
