"""The cluster's DNS: CoreDNS' configuration, and a resolver of a few lines to ask it with."""

import ipaddress
import secrets
import socket
import struct

from glm_cluster.addresses import CLUSTER_DOMAIN, DNS_SERVER, NODE_IP
from glm_cluster.errors import ClusterError
from glm_cluster.paths import Paths

TYPE_A, CLASS_IN = 1, 1


def corefile(paths: Paths) -> str:
    """Return CoreDNS' configuration. Denials are not cached: the name of a pod must appear as soon as the pod has."""
    return f"""\
.:53 {{
    bind {NODE_IP}
    errors
    ready {NODE_IP}:8181
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {paths.kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5 {{
        disable denial
    }}
}}
"""


def resolve(name: str, *, server: str = DNS_SERVER, timeout_s: float = 1.0) -> list[str]:
    """Return the IPv4 addresses of a fully qualified name, if any. ClusterError when nobody answers."""
    query_id = secrets.randbits(16)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(timeout_s)
            udp.connect((server, 53))
            udp.send(encode_query(query_id, name))
            return decode_addresses(query_id, udp.recv(4096))
    except OSError as error:
        raise ClusterError(f"the DNS server does not answer: {error}") from error


def encode_query(query_id: int, name: str) -> bytes:
    """Return a recursive question for the A records of a name. Source: RFC 1035, section 4.1."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return struct.pack("!6H", query_id, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", TYPE_A, CLASS_IN)


def decode_addresses(query_id: int, packet: bytes) -> list[str]:
    """Return the addresses in an answer, in its order."""
    answer_id, _, questions, answers, _, _ = struct.unpack_from("!6H", packet)
    if answer_id != query_id:
        raise OSError(f"DNS answer {answer_id} to question {query_id}")
    position = 12
    for _ in range(questions):
        position = _past_name(packet, position) + 4
    addresses = []
    for _ in range(answers):
        position = _past_name(packet, position)
        kind, _, _, length = struct.unpack_from("!2HIH", packet, position)
        position += 10
        if kind == TYPE_A:
            addresses.append(str(ipaddress.IPv4Address(packet[position : position + 4])))
        position += length
    return addresses


def _past_name(packet: bytes, position: int) -> int:
    while length := packet[position]:
        if length >= 0xC0:  # a pointer of two bytes ends a name
            return position + 2
        position += 1 + length
    return position + 1
