"""Read the output of the load programs, in the units of the figures."""

from __future__ import annotations

import json

import pytest

from tests.bench.data_path.load import LOADS

pytestmark = pytest.mark.unit

_STREAMS = {
    "end": {
        "sum_sent": {"bytes": 585891840, "bits_per_second": 4532420544.7, "sender": True},
        "sum_received": {"bytes": 500000000, "bits_per_second": 4503741062.8, "sender": True},
    }
}
_DATAGRAMS = {
    "end": {
        "sum_received": {
            "seconds": 2.0,
            "bytes": 137200,
            "bits_per_second": 1.0,
            "lost_packets": 60000,
            "packets": 160000,
            "sender": False,
        }
    }
}
_QPERF_UDP = """udp_bw:
    send_bw         =        1470352 bytes/sec
    recv_bw         =        1315648 bytes/sec
    msg_rate        =          20353 /sec
    msg_size        =             64 bytes
"""
_QPERF_TCP = """tcp_lat:
    latency        =       26582 ns
    msg_rate       =       37620 /sec
    msg_size       =          64 bytes
"""
_SOCKPERF = """sockperf: Summary: Round trip is 40.564 usec
sockperf: \x1b[2;35mTotal 13556 observations\x1b[0m; each percentile contains 135.56 observations
sockperf: ---> percentile 99.900 = 5199.327
sockperf: ---> percentile 99.000 =  447.984
sockperf: ---> percentile 90.000 =   18.717
sockperf: ---> percentile 50.000 =   14.221
sockperf: ---> percentile 25.000 =   13.740
"""
_WRK = """Running 1s test @ http://10.66.0.2:8080/
  1 threads and 8 connections
  8123 requests in 1.00s, 1.02MB read
Requests/sec:   8121.48
Transfer/sec:      1.02MB
"""


@pytest.mark.parametrize(
    ("measure", "output", "expected"),
    [
        ("TCP, 1 stream", json.dumps(_STREAMS), (4.5037410628, 0.5)),
        ("TCP, 8 streams", json.dumps(_STREAMS), (4.5037410628, 0.5)),
        ("UDP", json.dumps(_DATAGRAMS), (100000 * 1372 * 8 / 2 / 1e9,)),
        ("small packets", _QPERF_UDP, (20557,)),
        ("request/response", _QPERF_TCP, (18810,)),
        ("round trip, median", _SOCKPERF, (14.221, 447.984)),
        ("connections", _WRK, (8121.48,)),
    ],
)
def test_the_output_of_each_program_gives_its_figures(
    measure: str, output: str, expected: tuple[float, ...]
) -> None:
    (load,) = (each for each in LOADS if each.measures[0].name == measure)
    assert tuple(load.read(output, 0.25)) == pytest.approx(expected)
    assert len(expected) == len(load.measures)
