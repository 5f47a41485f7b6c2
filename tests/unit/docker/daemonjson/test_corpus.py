"""Real-world shapes of daemon.json, byte-exact: promise 7, the operator's keys survive."""

import json
from ipaddress import IPv4Network

import pytest

from agent.docker.daemonjson.desired import desired_docker, keys_for
from agent.docker.daemonjson.document import parse

pytestmark = pytest.mark.unit

KEYS = keys_for(desired_docker(IPv4Network("10.64.0.0/16"), 1450), "26.1.5")
BIP = '"bip": "10.64.0.1/17"'
POOLS = '"default-address-pools": [{"base": "10.64.128.0/17", "size": 24}]'
MTU = '"mtu": 1450'
NETWORK_OPTS = '"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1450"}}'
ADDED = (BIP, POOLS, MTU, NETWORK_OPTS)

# ▮ is where the four keys go, each with the separator in front.
APPENDED = {
    "one key, two spaces": (",\n  ", '{\n  "log-driver": "journald"▮\n}\n'),
    "one key on one line": (", ", '{"exec-opts": ["native.cgroupdriver=systemd"]▮}\n'),
    "one line, spaces inside the braces": (", ", '{ "iptables": false▮ }\n'),
    "four spaces": (
        ",\n    ",
        (
            '{\n    "log-driver": "json-file",\n    "log-opts": {\n        "max-size": "10m",\n'
            '        "max-file": "3"\n    }▮\n}\n'
        ),
    ),
    "tabs": (",\n\t", '{\n\t"live-restore": true,\n\t"storage-driver": "overlay2"▮\n}\n'),
    "Windows line ends": (
        ",\r\n  ",
        '{\r\n  "dns": ["8.8.8.8", "1.1.1.1"],\r\n  "debug": false▮\r\n}\r\n',
    ),
    "carriage returns alone": (",\r", '{\r"debug": true▮\r}\r'),
    "byte order mark": (",\n  ", '\ufeff{\n  "debug": true▮\n}\n'),
    "no indentation": (",\n", '{\n"debug": true,\n"experimental": false▮\n}\n'),
    "no newline at the end": (",\n  ", '{\n  "data-root": "/srv/docker"▮\n}'),
    "many newlines at the end": (",\n  ", '{\n  "data-root": "/srv/docker"▮\n}\n\n\n'),
    "leading commas": ("\n  , ", '{\n    "debug": true\n  , "ipv6": false▮\n}\n'),
    "aligned values": (
        ",\n  ",
        '{\n  "debug":        true,\n  "storage-driver": "overlay2"▮\n}\n',
    ),
    "blank lines between keys": (",\n  ", '{\n\n  "debug": true,\n\n  "ipv6": false▮\n\n}\n'),
    "brace on the key's line": (",\n  ", '{ "debug": true,\n  "ipv6": false▮ }\n'),
    "GPU runtime": (
        ",\n    ",
        (
            '{\n    "default-runtime": "nvidia",\n    "runtimes": {\n        "nvidia": {\n'
            '            "path": "/usr/bin/nvidia-container-runtime",\n'
            '            "runtimeArgs": []\n        }\n    }▮\n}\n'
        ),
    ),
    "kubeadm of old": (
        ",\n  ",
        (
            '{\n  "exec-opts": ["native.cgroupdriver=systemd"],\n  "log-driver": "json-file",\n'
            '  "log-opts": {\n    "max-size": "100m"\n  },\n  "storage-driver": "overlay2"▮\n}\n'
        ),
    ),
    "odd numbers": (
        ",\n  ",
        (
            '{\n  "default-ulimits": {"nofile": {"Hard": 64000, "Soft": 6.4e4}},\n'
            '  "max-concurrent-downloads": 3,\n  "shutdown-timeout": 1E+2▮\n}\n'
        ),
    ),
    "escapes and other alphabets": (
        ",\n  ",
        '{\n  "labels": ["rack=\\u00e4\\/7", "ort=Köln", "🐳", "quote=\\"{,}\\""]▮\n}\n',
    ),
    "TLS hosts": (
        ",\n  ",
        (
            '{\n  "tlsverify": true,\n  "tlscacert": "/etc/docker/ca.pem",\n'
            '  "hosts": ["unix:///var/run/docker.sock", "tcp://0.0.0.0:2376"]▮\n}\n'
        ),
    ),
    "proxies": (
        ",\n  ",
        (
            '{\n  "proxies": {\n    "http-proxy": "http://u:p@proxy.example:3128",\n'
            '    "no-proxy": "*.example,127.0.0.0/8"\n  }▮\n}\n'
        ),
    ),
    "user namespaces": (",\n ", '{\n "userns-remap": "default",\n "icc": false▮\n}\n'),
    "keys in capitals are other keys": (
        ",\n  ",
        '{\n  "BIP": "1.2.3.4/24",\n  "Mtu": 1▮\n}\n',
    ),
    "spaces at the ends of lines": (
        ",\n  ",
        '{  \n  "debug": true,   \n  "ipv6": false▮   \n}  \n',
    ),
    "arrays over many lines": (
        ",\n\t",
        (
            '{\n\t"registry-mirrors": [\n\t\t"https://mirror.example"\n\t],\n'
            '\t"insecure-registries": []▮\n}\n'
        ),
    ),
    "the empty key": (",\n  ", '{\n  "": 1,\n  " ": []▮\n}\n'),
    "metrics and features": (
        ",\n   ",
        (
            '{\n   "metrics-addr": "127.0.0.1:9323",\n   "features": {"buildkit": true},\n'
            '   "builder": {"gc": {"enabled": true, "defaultKeepStorage": "20GB"}}▮\n}\n'
        ),
    ),
}


@pytest.mark.parametrize("name", APPENDED)
def test_promise_7_added_keys_leave_every_other_byte_as_it_is(name: str) -> None:
    separator, marked = APPENDED[name]
    before = marked.replace("▮", "")
    after = marked.replace("▮", "".join(separator + member for member in ADDED))
    document = parse(before).with_values(KEYS)
    assert document.text == after
    for path in KEYS:
        document = document.with_text(path[:1], None)
    assert document.text == before


FRESH = "{\n  " + ",\n  ".join(ADDED) + "\n}"
REWRITTEN = {
    "absent file": ("", FRESH + "\n"),
    "only white space": (" \n\n", FRESH + "\n"),
    "empty object": ("{}", FRESH),
    "empty object and newline": ("{}\n", FRESH + "\n"),
    "empty object over two lines": ("{\n}\n", FRESH + "\n"),
    "empty object with a blank line": ("{\n\n}\n", FRESH[:-1] + "\n}\n"),
    "compact": (
        '{"storage-driver":"overlay2","log-opts":{"max-size":"10m"}}',
        (
            '{"storage-driver":"overlay2","log-opts":{"max-size":"10m"},"bip":"10.64.0.1/17",'
            '"default-address-pools":[{"base":"10.64.128.0/17","size":24}],"mtu":1450,'
            '"default-network-opts":{"bridge":{"com.docker.network.driver.mtu":"1450"}}}'
        ),
    ),
    "space before the colon": (
        '{\n  "debug" : true,\n  "ipv6" : false\n}\n',
        (
            '{\n  "debug" : true,\n  "ipv6" : false,\n  "bip" : "10.64.0.1/17",\n'
            '  "default-address-pools" : [{"base": "10.64.128.0/17", "size": 24}],\n'
            '  "mtu" : 1450,\n  "default-network-opts" : '
            '{"bridge": {"com.docker.network.driver.mtu": "1450"}}\n}\n'
        ),
    ),
    "there already, spelled differently": (
        (
            '{\n  "bip" : "10.64.0.1\\/17" ,\n  "default-address-pools": [\n'
            '    { "size": 24, "base": "10.64.128.0/17" }\n  ],\n  "mtu": 1450\n}\n'
        ),
        (
            '{\n  "bip" : "10.64.0.1\\/17" ,\n  "default-address-pools": [\n'
            '    { "size": 24, "base": "10.64.128.0/17" }\n  ],\n  "mtu": 1450,\n'
            f"  {NETWORK_OPTS}\n}}\n"
        ),
    ),
    "operator's bip in the middle": (
        '{\n  "debug": true,\n  "bip": "192.168.5.1/24",\n  "ipv6": false\n}\n',
        (
            f'{{\n  "debug": true,\n  {BIP},\n  "ipv6": false,\n  {POOLS},\n  {MTU},\n'
            f"  {NETWORK_OPTS}\n}}\n"
        ),
    ),
    "operator's pools over many lines": (
        (
            '{\n  "default-address-pools": [\n    {\n      "base": "172.80.0.0/16",\n'
            '      "size": 24\n    }\n  ],\n  "debug": true\n}\n'
        ),
        f'{{\n  {POOLS},\n  "debug": true,\n  {BIP},\n  {MTU},\n  {NETWORK_OPTS}\n}}\n',
    ),
    "network options of another driver": (
        '{\n  "default-network-opts": {\n    "overlay": {"encrypted": "true"}\n  }\n}\n',
        (
            '{\n  "default-network-opts": {\n    "overlay": {"encrypted": "true"},\n'
            '    "bridge": {"com.docker.network.driver.mtu": "1450"}\n  },\n'
            f"  {BIP},\n  {POOLS},\n  {MTU}\n}}\n"
        ),
    ),
    "network options of the bridge": (
        '{\n  "default-network-opts": {\n    "bridge": {\n      "x": "127.0.0.1"\n    }\n  }\n}',
        (
            '{\n  "default-network-opts": {\n    "bridge": {\n      "x": "127.0.0.1",\n'
            '      "com.docker.network.driver.mtu": "1450"\n    }\n  },\n'
            f"  {BIP},\n  {POOLS},\n  {MTU}\n}}"
        ),
    ),
    "network options, empty": (
        '{\n  "default-network-opts": {},\n  "debug": true\n}\n',
        f'{{\n  {NETWORK_OPTS},\n  "debug": true,\n  {BIP},\n  {POOLS},\n  {MTU}\n}}\n',
    ),
    "null values": (
        '{\n  "bip": null,\n  "mtu": null,\n  "debug": null\n}\n',
        f'{{\n  {BIP},\n  {MTU},\n  "debug": null,\n  {POOLS},\n  {NETWORK_OPTS}\n}}\n',
    ),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_promise_7_changed_keys_leave_every_other_byte_as_it_is(name: str) -> None:
    before, after = REWRITTEN[name]
    assert parse(before).with_values(KEYS).text == after
    assert parse(after).with_values(KEYS).text == after


def test_the_corpus_is_large_enough_and_valid_json() -> None:
    texts = [marked.replace("▮", "") for _, marked in APPENDED.values()]
    texts += [before for before, _ in REWRITTEN.values()]
    assert len(set(texts)) >= 40
    for text in texts:
        assert not text.strip() or isinstance(json.loads(text.lstrip("\ufeff")), dict)
