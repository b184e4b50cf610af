"""Which host serves which device: looked up again before every question, because hosts come, go and change their ids."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clmm_core.data.fleet import DataConfig
from clmm_core.errors import CodeMismatchError, ConfigError, DataError, RoundFailedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.messages import DeviceProfile, HostProfile
from clmm_core.federated.source import client_source
from clmm_core.training.tasks import ProfileTask
from server.hosts import Answer, Hosts, Question

TaskFor = Callable[[tuple[str, ...]], Any]
"""Makes a host's task from the devices it is asked about."""


@dataclass
class Directory:
    """The hosts that answered, by device, and the profiles they gave."""

    hosts: Hosts
    data: DataConfig
    min_reply_share: float
    profiles: dict[int, HostProfile] = field(default_factory=dict)

    def refresh(self) -> None:
        """Profile hosts that are new and forget those that left.

        Raises:
            CodeMismatchError: a host runs other client code.
            DataError: two hosts serve the same subject.
        """
        names = self.hosts.names()
        new = [name for name in names if name not in self.profiles]
        if new:
            answers, failures = self.hosts.ask("query.profile", {h: Question(ProfileTask(data=self.data), {}) for h in new}, HostProfile)
            self._require_replies("query.profile", len(new), answers, failures)
            for host, answer in answers.items():
                _check_source(host, answer.reply)
                self.profiles[host] = answer.reply
        self.profiles = {host: profile for host, profile in self.profiles.items() if host in names}
        _check_served_once(self.profiles)

    @property
    def devices(self) -> dict[str, DeviceProfile]:
        """Every device that can be used, by name, ascending."""
        found = {device.device: device for profile in self.profiles.values() for device in profile.devices}
        return dict(sorted(found.items()))

    @property
    def num_hosts(self) -> int:
        """Hosts that serve at least one device."""
        return sum(bool(profile.devices) for profile in self.profiles.values())

    def left_out(self) -> list[str]:
        """Return what hosts could not use, and why, in the order of devices."""
        return [each.reason for each in sorted((e for p in self.profiles.values() for e in p.left_out), key=lambda e: e.device)]

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
        self, message_type: str, devices: Sequence[str], task_for: TaskFor, arrays: Arrays, reply_kind: type
    ) -> tuple[list[Answer], list[str]]:
        """Ask each host about its devices; return the answers in the order of devices, and who did not answer and why.

        Raises:
            RoundFailedError: fewer hosts answered than `min-reply-share` wants, or nobody serves these devices.
        """
        self.refresh()
        questions: dict[int, Question] = {}
        for host, profile in sorted(self.profiles.items(), key=lambda item: min((d.device for d in item[1].devices), default="")):
            here = tuple(sorted({device.device for device in profile.devices} & set(devices)))
            if here:
                questions[host] = Question(task_for(here), arrays)
        if not questions:
            raise RoundFailedError(f"{message_type}: none of the {len(devices)} devices asked for is served by a connected host")
        answers, failures = self.hosts.ask(message_type, questions, reply_kind)
        self._require_replies(message_type, len(questions), answers, failures)
        return list(answers.values()), [f"{message_type}: host {host} did not answer: {why}" for host, why in failures.items()]

    def _require_replies(self, message_type: str, asked: int, answers: dict[int, Answer], failures: dict[int, str]) -> None:
        if len(answers) < max(1.0, self.min_reply_share * asked):
            reasons = "; ".join(dict.fromkeys(why.strip().splitlines()[-1] for why in failures.values() if why.strip()))
            raise RoundFailedError(
                f"{message_type}: expected answers of at least {self.min_reply_share:.0%} of {asked} host(s), found {len(answers)}: "
                f"{reasons}"
            )


def _check_source(host: int, profile: HostProfile) -> None:
    if profile.source != client_source():
        raise CodeMismatchError(
            f"host {host} runs client code {profile.source}, this server expects {client_source()}: another checkout or version answered; "
            "install the same version on both, and start the SuperLink from the folder of the app that is run"
        )


def _check_served_once(profiles: dict[int, HostProfile]) -> None:
    seen: dict[str, int] = {}
    for host, profile in profiles.items():
        for device in profile.devices:
            if device.device in seen:
                raise DataError(
                    f"subject '{device.device}' is served by both host {seen[device.device]} and host {host}: give each subject one host"
                )
            seen[device.device] = host
