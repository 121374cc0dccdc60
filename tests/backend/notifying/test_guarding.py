"""Where a webhook may go: never into a private network, whatever its address is dressed as."""

import pytest

from allotment.backend.notifying.guarding import Unreachable, checked, is_public, target_of
from allotment.backend.notifying.webhooks import signed

NEVER = """
    127.0.0.1 127.255.255.254 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 169.254.169.254
    100.64.0.1 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255
    ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 ff02::1 2001:db8::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 ::10.0.0.1
    64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 2002:7f00:1:: 2002:a9fe:a9fe:: 2001:0:7f00:1:: nonsense
"""
ALWAYS = """
    8.8.8.8 1.1.1.1 172.32.0.1 100.128.0.1 2606:4700:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808
"""


@pytest.mark.parametrize("address", NEVER.split())
def test_an_address_of_a_private_network_is_known_in_every_dress(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ALWAYS.split())
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


def test_of_several_addresses_all_must_be_public():
    with pytest.raises(Unreachable) as refused:
        checked(["8.8.8.8", "10.0.0.1"], private=False)
    assert refused.value.code == "private_address"
    assert checked(["8.8.8.8", "1.1.1.1"], private=False) == "8.8.8.8"
    assert checked(["10.0.0.1"], private=True) == "10.0.0.1"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://hooks.example.com/a?b=c", "https://hooks.example.com"),
        ("https://hooks.example.com:8443/a", "https://hooks.example.com:8443"),
        ("https://[2606:4700:4700::1111]/", "https://[2606:4700:4700::1111]"),
    ],
)
def test_of_an_address_only_the_origin_is_told(url, origin):
    assert target_of(url, private=False).origin == origin


def test_an_address_with_a_line_break_is_none():
    with pytest.raises(Unreachable):
        target_of("https://hooks.example.com/\r\nX-Evil: 1", private=True)


def test_each_secret_signs():
    headers = signed(["whsec_" + "YQ==", "whsec_" + "Yg=="], "msg_1", b"{}")
    assert headers["webhook-signature"].count("v1,") == 2
