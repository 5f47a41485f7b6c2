"""Chains that nft made, when the kernel does not list them this time."""

import errno
from collections.abc import Iterator

import pytest

from agent.errors import KernelError
from agent.kernel.firewall.advice.conditions import unlisted_chains
from agent.kernel.firewall.advice.nft_chains import NftChain, dropping_chains
from agent.kernel.firewall.edits import TableEdit
from agent.kernel.firewall.parse import Ruleset
from agent.kernel.firewall.variant import choice
from agent.kernel.firewall.variant.choice import VariantChoice
from agent.kernel.firewall.variant.iptables import Iptables, Variant
from agent.kernel.netlink import NetlinkError, NetlinkSocket

pytestmark = pytest.mark.unit

CHAIN = NftChain("inet", "firewalld", "filter_FORWARD", "policy drop")


class Empty:
    """A variant without rules."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant

    def read(self) -> Ruleset:
        return Ruleset()

    def write(self, edits: tuple[TableEdit, ...]) -> None:
        assert not edits

    def set_policy(self, policy: str) -> None:
        raise AssertionError(policy)


def test_promise_9_a_listing_that_fails_clears_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[tuple[NftChain, ...] | KernelError] = iter(
        [(CHAIN,), KernelError("changed during each of 10 attempts"), ()]
    )

    def listed(_family: object) -> tuple[NftChain, ...]:
        answer = next(answers)
        if isinstance(answer, KernelError):
            raise answer
        return answer

    monkeypatch.setattr(choice, "dropping_chains", listed)
    made = VariantChoice(
        programs=Iptables(),
        writers={variant: Empty(variant) for variant in Variant},
        fixed=Variant.NFT,
        dockerd=lambda: None,
        clock=lambda: 0.0,
    )
    known = [made.read() for _ in range(3)]
    assert [each.chains for each in known] == [(CHAIN,), (CHAIN,), ()]
    said = [[each.subject for each in unlisted_chains(look.unseen)] for look in known]
    assert said == [[], ["nft"], []]


@pytest.mark.parametrize(("number", "is_none"), [(errno.EINVAL, True), (errno.EPERM, False)])
def test_a_kernel_without_nf_tables_has_no_chains_and_others_do_not_say(
    monkeypatch: pytest.MonkeyPatch, number: int, *, is_none: bool
) -> None:
    def refused(_self: NetlinkSocket, *_args: object) -> list[bytes]:
        raise NetlinkError("listing nft chains", number)

    monkeypatch.setattr(NetlinkSocket, "dump", refused)
    if is_none:
        assert dropping_chains() == ()
        return
    with pytest.raises(NetlinkError):
        dropping_chains()
