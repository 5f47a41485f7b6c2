"""Choose the iptables variant that the agent's rules belong in, and look at the other one.

The other variant is read for rules of the agent's and of Docker's. The chosen one does not depend
on it: a variant that cannot be read is a condition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.errors import DependencyMissing, FirewallError, HostmeshError, KernelError
from agent.kernel.firewall.advice.nft_chains import NftChain, dropping_chains
from agent.kernel.firewall.chains.rule import DOCKER_CHAIN
from agent.kernel.firewall.edits import TableEdit, removal_edits
from agent.kernel.firewall.parse import Ruleset
from agent.kernel.firewall.variant.dockerd import Dockerd, variant_of
from agent.kernel.firewall.variant.iptables import Iptables, Variant

__all__ = ["Other", "Reading", "VariantChoice", "Writer"]

_OTHER_EVERY_S: Final = 30.0
"""How often the variant is asked for again and the one not in use is looked at."""
_PAUSE_PER_LOOK: Final = 20.0
"""A look that took long is followed by a pause of so many times that: a program may hang."""


class Writer(Protocol):
    """One variant's tables."""

    variant: Variant

    def read(self) -> Ruleset:
        """All tables, whole or an error."""

    def write(self, edits: tuple[TableEdit, ...]) -> None:
        """Commit, each table whole or not at all."""

    def set_policy(self, policy: str) -> None:
        """FORWARD's policy in the filter table."""


@dataclass(frozen=True, slots=True)
class Other:
    """The variant that is not in use, as it was last seen.

    Attributes:
        ruleset: Its tables; empty where it is not installed or could not be read.
        error: Why it could not be read, or cleared of the agent's rules.
    """

    ruleset: Ruleset = field(default_factory=Ruleset)
    error: HostmeshError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Both variants: the chosen one as it is now, all else as last seen.

    Attributes:
        writer: Of the chosen variant.
        ruleset: All tables of the chosen variant.
        dockers: The variant that the running dockerd writes to, None when it is not known.
        fixed: Settings say which variant, not where Docker's rules are.
        chains: Chains made with nft, as they were last seen.
        unseen: Why they could not be listed now; None when they were.
    """

    writer: Writer
    ruleset: Ruleset
    other: Other
    dockers: Variant | None
    fixed: bool
    chains: tuple[NftChain, ...]
    unseen: KernelError | None

    @property
    def variant(self) -> Variant:
        """The chosen one."""
        return self.writer.variant


class VariantChoice:
    """Reads the variant that the agent's rules belong in; every 30 s or later it chooses again.

    Args:
        programs: The iptables programs.
        writers: One per variant.
        fixed: The variant to use; None to find where Docker's rules are.
        dockerd: Returns the running dockerd, None when there is none.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        programs: Iptables,
        writers: Mapping[Variant, Writer],
        fixed: Variant | None,
        dockerd: Callable[[], Dockerd | None],
        clock: Callable[[], float],
    ) -> None:
        self._programs = programs
        self._writers = writers
        self._fixed = fixed
        self._dockerd = dockerd
        self._clock = clock
        self._chosen: Variant | None = None
        self._last: Variant | None = None
        self._dockers: Variant | None = None
        self._other = Other()
        self._chains: tuple[NftChain, ...] = ()
        self._look_again_s = 0.0

    def read(self) -> Reading:
        """Return the chosen variant's tables, read now.

        Raises:
            DependencyMissing, NotRoot, FirewallError: They cannot be read whole.
        """
        if self._chosen is None or self._clock() >= self._look_again_s:
            ruleset = self._choose()
        else:
            ruleset = self._writers[self._chosen].read()
        unseen = None
        try:
            self._chains = dropping_chains(self._programs.family)
        except KernelError as error:
            unseen = error
        return Reading(
            writer=self._writers[self._chosen or Variant.NFT],
            ruleset=ruleset,
            other=self._other,
            fixed=self._fixed is not None,
            chains=self._chains,
            unseen=unseen,
            dockers=self._dockers,
        )

    def again(self) -> None:
        """Choose anew at the next reading: Docker has started since."""
        self._chosen = None

    def leave_other(self) -> tuple[str, ...]:
        """Remove the agent's rules from the variant that is not in use; return the changes.

        An error is kept for :attr:`Reading.other`: the rules are where they belong by now.
        """
        edits = removal_edits(self._other.ruleset)
        if self._chosen is None or not edits:
            return ()
        writer = self._writers[self._chosen.other]
        try:
            writer.write(edits)
            self._other = Other(writer.read())
        except (FirewallError, DependencyMissing) as error:
            self._other = Other(error=error)
            return ()
        return tuple(f"{writer.variant}: {line}" for edit in edits for line in edit.described())

    def remove_all(self) -> tuple[Variant, tuple[str, ...]]:
        """Remove the agent's rules from both variants; return the chosen one and the changes.

        Where the other cannot be read, the changes say so. A rule that is left there keeps its set
        from being destroyed, which is an error of its own.

        Raises:
            DependencyMissing, NotRoot, FirewallError: Rules may still be in the chosen one; the
                other was cleared if it could be.
        """
        done: list[str] = []
        errors: dict[Variant, HostmeshError] = {}
        chosen = self._chosen or self._fixed or self._docker_variant() or self._default()
        self._chosen = None
        for variant in filter(self._programs.has, (chosen, chosen.other)):
            try:
                edits = removal_edits(self._writers[variant].read())
                self._writers[variant].write(edits)
            except (FirewallError, DependencyMissing) as error:
                errors[variant] = error
                continue
            done += [f"{variant}: {line}" for edit in edits for line in edit.described()]
        if chosen in errors:
            raise errors[chosen]
        done += [f"{variant}: not looked at: {error.message}" for variant, error in errors.items()]
        return chosen, tuple(done)

    def _docker_variant(self) -> Variant | None:
        dockerd = self._dockerd()
        return None if dockerd is None else variant_of(dockerd.pid)

    def _default(self) -> Variant:
        found = self._programs.default_variant()
        return found if self._programs.has(found) else found.other

    def _choose(self) -> Ruleset:
        """Choose the variant of the settings, else of dockerd's ``iptables``, else of the host's.

        While alternatives were switched and Docker was not restarted since, its rules are still in
        the other one, and so the agent's must be. Where the agent's were right and Docker's chains
        went (iptables -F and -X), chains of an older Docker in the other one move nothing.
        """
        self._chosen = None
        began_s = self._clock()
        self._dockers = self._docker_variant()
        wanted = self._fixed or self._dockers or self._default()
        if self._fixed is None and not self._programs.has(wanted):
            wanted = wanted.other
        mine, other = self._look(wanted), self._look(wanted.other)
        stays = self._fixed is not None or wanted is self._last is self._dockers
        if not stays and _has_docker(other) and not _has_docker(mine):
            wanted, mine, other = wanted.other, other, mine
        if mine.error is not None:
            raise mine.error
        self._chosen = self._last = wanted
        self._other = other
        now_s = self._clock()
        self._look_again_s = now_s + max(_OTHER_EVERY_S, (now_s - began_s) * _PAUSE_PER_LOOK)
        return mine.ruleset

    def _look(self, variant: Variant) -> Other:
        if variant is not self._fixed and not self._programs.has(variant):
            return Other()
        try:
            return Other(self._writers[variant].read())
        except (FirewallError, DependencyMissing) as error:
            return Other(error=error)


def _has_docker(look: Other) -> bool:
    return DOCKER_CHAIN in look.ruleset.table("filter").chains
