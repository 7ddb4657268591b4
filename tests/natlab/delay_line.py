"""Delays every packet that the core forwards: a program that reads them from a TUN device and writes them back later.

The kernels of many machines lack sch_netem. The standard library alone is used, because it starts with each lab.

Arguments: the device's name, and the delay in milliseconds. Standard output says ``ready`` when the device is there.
Each line of standard input, ``late MARK SECONDS``, is answered ``ok``: from then on a ``go`` of the rendezvous is held
for so long on its way to the client whose packets carry that DSCP mark. So one client starts later than the other, and
neither they nor the rendezvous can know. The end of standard input ends the program: it outlives no killed owner.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import socket
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCSIFTXQLEN = 0x8943
IFF_UP = 0x1
"""From linux/if_tun.h, linux/sockios.h and linux/if.h."""

QUEUE_LENGTH = 10_000
"""Packets that the device may hold for us: far more than a burst of SYNs."""

LONGEST_PACKET = 65_536

GO = b'"op":"go"'
"""What tells the rendezvous's starting shot from its other lines."""

TCP = 6

Endpoint = tuple[bytes, bytes]
"""Address and port as in the packet."""


def open_device(name: str) -> int:
    """Makes the TUN device, brings it up, and gives its descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFTXQLEN, struct.pack("16si20x", name.encode(), QUEUE_LENGTH))
        answer = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
        (flags,) = struct.unpack_from("H", answer, 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | IFF_UP))
    return device


def endpoints(packet: bytes) -> tuple[int, Endpoint, Endpoint] | None:
    """DSCP mark, source and destination of a TCP packet; None for any other."""
    version = packet[0] >> 4
    if version == 4 and packet[9] == TCP:
        start = (packet[0] & 15) * 4
        mark, source, destination = packet[1] >> 2, packet[12:16], packet[16:20]
    elif version == 6 and packet[6] == TCP:
        start = 40
        mark, source, destination = ((packet[0] & 15) << 4 | packet[1] >> 4) >> 2, packet[8:24], packet[24:40]
    else:
        return None
    return mark, (source, packet[start : start + 2]), (destination, packet[start + 2 : start + 4])


class DelayLine:
    """Packets on their way.

    :param delay: of every packet, in seconds.
    """

    def __init__(self, device: int, delay: float) -> None:
        self._device = device
        self._delay = delay
        self._waiting: list[tuple[float, int, bytes]] = []
        self._taken = 0
        self._late: dict[int, float] = {}
        self._marks: dict[Endpoint, int] = {}

    def late(self, mark: int, seconds: float) -> None:
        """From now on a go is held for so long on its way to the client with this mark."""
        self._late[mark] = seconds

    @property
    def patience(self) -> float | None:
        """Seconds until the next packet is due; None when there is none."""
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def take(self) -> None:
        """Reads what the kernel has for us."""
        try:
            while True:
                packet = os.read(self._device, LONGEST_PACKET)
                self._taken += 1
                due = time.monotonic() + self._delay + self._extra(packet)
                heapq.heappush(self._waiting, (due, self._taken, packet))
        except BlockingIOError:
            return

    def deliver(self) -> None:
        """Gives back what is due."""
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, _, packet = heapq.heappop(self._waiting)
            try:
                os.write(self._device, packet)
            except OSError as error:
                print(f"a packet of {len(packet)} bytes was lost: {error}", file=sys.stderr)  # noqa: T201 a program

    def _extra(self, packet: bytes) -> float:
        """Seconds that a packet is held beyond the delay; learns from it which client is behind which mapping."""
        found = endpoints(packet)
        if found is None:
            return 0.0
        mark, source, destination = found
        if mark:
            self._marks[source] = mark
        if not self._late or GO not in packet:
            return 0.0
        return self._late.get(self._marks.get(destination, 0), 0.0)


def main() -> None:
    """Runs until standard input ends."""
    name, milliseconds = sys.argv[1:]
    device = open_device(name)
    line = DelayLine(device, float(milliseconds) / 1000)
    print("ready", flush=True)  # noqa: T201 what the lab waits for
    said = b""
    while True:
        readable, _, _ = select.select([device, sys.stdin], [], [], line.patience)
        if device in readable:
            line.take()
        if sys.stdin in readable:
            data = os.read(sys.stdin.fileno(), 4096)
            if not data:
                return
            *commands, said = (said + data).split(b"\n")
            for command in commands:
                _, mark, seconds = command.split()
                line.late(int(mark), float(seconds))
                print("ok", flush=True)  # noqa: T201 what the lab waits for
        line.deliver()


if __name__ == "__main__":
    main()
