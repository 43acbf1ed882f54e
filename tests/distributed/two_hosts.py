"""Two hosts on one machine: network, process, mount and host-name namespaces of their own on one switch, an sshd on each.

A host's init is its sshd: killing it kills every process on the host, as a loss of power does. All of it, namespaces,
mounts and addresses, vanishes with the two processes, and nobody's home folder or ssh keys are touched.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from places import ROOT

NAMES = ("alpha", "beta")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
TOOLS = ("ip", "unshare", "nsenter", "mount", "ssh", "ssh-keygen", "pdsh", "hostname")
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--ipc")

# Debian's way with a host's own name, which sends gloo to the loopback interface unless GLOO_SOCKET_IFNAME names another.
HOSTS = "127.0.0.1 localhost\n127.0.1.1 {own}\n{peer_address} {peer}\n"
SSH_CONFIG = """Host *
  IdentityFile {folder}/key
  IdentitiesOnly yes
  BatchMode yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ServerAliveInterval 2
  ServerAliveCountMax 3
"""
SSHD_CONFIG = """HostKey {folder}/hostkey
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
"""
# The innermost shell becomes the host's init. /dev/shm and /run are the host's own; everything else is "shared storage".
INIT = """
set -e
mount --make-rprivate /
mount -t tmpfs none /dev/shm; mount -t tmpfs none /run; mkdir -p /run/sshd
mount --bind {folder}/{name}.hosts /etc/hosts
mount --bind {folder}/ssh_config /etc/ssh/ssh_config
{mounts}
hostname {name}
exec {sshd} -D -e -f {folder}/sshd_config
"""


def missing() -> str | None:
    """Why there can be no two hosts here, or None."""
    if os.geteuid():
        return "two hosts need root, for namespaces and mounts"
    absent = [tool for tool in TOOLS if not shutil.which(tool)] + ([] if SSHD else ["sshd"])
    if absent:
        return f"two hosts need {', '.join(absent)} (Debian: apt-get install iproute2 openssh-server pdsh)"
    trial = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "--mount-proc", "sh", "-c",
         "ip link add eth0 type veth peer name eth1 && mount -t tmpfs none /run"],
        capture_output=True, text=True,
    )  # fmt: skip
    return None if trial.returncode == 0 else f"no namespaces here: {trial.stderr.strip() or 'unshare failed'}"


@dataclass
class Host:
    """One of the two."""

    name: str
    """Its host name."""
    address: str
    """Its address on the cable."""
    outer: subprocess.Popen
    """The unshare process, outside."""
    init: int
    """Its init, as seen from outside."""
    switch: int
    """The process that keeps the switch, with a port of the host's name."""

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs ``arguments`` on this host."""
        return ["nsenter", "--target", str(self.init), *NAMESPACES, f"--wd={ROOT}", "--", *arguments]

    def run(self, *arguments: str) -> str:
        return subprocess.run(self.command(*arguments), check=True, capture_output=True, text=True).stdout

    def processes(self, pattern: str) -> list[str]:
        """Command lines of this host's processes that contain ``pattern``."""
        script = 'for p in /proc/[0-9]*; do tr "\\0" " " < $p/cmdline 2>/dev/null; echo; done'
        return [line for line in self.run("bash", "-c", script).splitlines() if pattern in line and script not in line]

    def kill(self) -> None:
        """Every process of the host ends at once; the kernel still closes their connections."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self.outer.wait(timeout=20)

    def pull_the_cable(self) -> None:
        """The host falls silent: nothing it sends, a closed connection included, arrives any more."""
        at_switch(self.switch, "link", "set", self.name, "down")


@dataclass
class TwoHosts:
    """Both, and the files they were made from."""

    alpha: Host
    beta: Host
    folder: Path
    hostfile: Path

    def start(self, command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen:
        """Starts ``command`` on alpha, where ``~/.deepspeed_env`` is the one in ``folder``."""
        return subprocess.Popen(
            self.alpha.command(*command),
            env=clean_environment() | {"HOME": str(self.folder)} | (environment or {}),
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def deepspeed(self, program: str, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
        """``deepspeed --hostfile``, typed on alpha."""
        port = str(free_port())
        return self.start(
            ["deepspeed", "--hostfile", str(self.hostfile), "--master_addr", self.alpha.address, "--master_port", port,
             *launcher, program, *arguments]
        )  # fmt: skip


def clean_environment() -> dict[str, str]:
    """What a login on a cluster has: no variable of the test's own process reaches a host by accident."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/root"), "LANG": "C.UTF-8"}


def forwarded() -> dict[str, str]:
    """``~/.deepspeed_env`` of the hosts: pdsh takes along little else."""
    return {
        "PATH": clean_environment()["PATH"],
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "eth0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DEEPSPEED_TIMEOUT": "1",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def two_hosts(folder: Path, unshared: tuple[Path, Path] | None = None):
    """The hosts, for as long as the block lasts. ``unshared`` (there, instead): beta sees the second folder as the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in ("key", "hostkey"):
        if not (folder / key).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "ssh_config").write_text(SSH_CONFIG.format(folder=folder))
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder))
    (folder / ".deepspeed_env").write_text("".join(f"{name}={value}\n" for name, value in forwarded().items()))
    hostfile = folder / "hostfile"
    hostfile.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    with contextlib.ExitStack() as stack:
        switch = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        stack.callback(switch.wait)
        stack.callback(switch.kill)
        wait_until(lambda: Path(f"/proc/{switch.pid}/comm").read_text() == "sleep\n", "the switch")
        at_switch(switch.pid, "link", "add", "bridge", "type", "bridge")
        at_switch(switch.pid, "link", "set", "bridge", "up")
        hosts = []
        for own, (name, address) in enumerate(zip(NAMES, ADDRESSES)):
            mounts = f"mount --bind {unshared[1]} {unshared[0]}" if unshared and own == 1 else ""
            host = start_host(folder, name, address, 1 - own, mounts, switch.pid)
            stack.callback(host.kill)
            hosts.append(host)
            ends = ["eth0", "netns", str(host.init), "type", "veth", "peer", "name", name, "netns", str(switch.pid)]
            subprocess.run(["ip", "link", "add", *ends], check=True)
            at_switch(switch.pid, "link", "set", name, "master", "bridge", "up")
            host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            host.run("ip", "link", "set", "lo", "up")
            host.run("ip", "link", "set", "eth0", "up")
        alpha, beta = hosts
        wait_until(lambda: subprocess.run(alpha.command("ssh", beta.address, "true")).returncode == 0, "ssh to beta")
        yield TwoHosts(alpha, beta, folder, hostfile)


def start_host(folder: Path, name: str, address: str, peer: int, mounts: str, switch: int) -> Host:
    (folder / f"{name}.hosts").write_text(HOSTS.format(own=name, peer=NAMES[peer], peer_address=ADDRESSES[peer]))
    script = INIT.format(folder=shlex.quote(str(folder)), name=name, mounts=mounts, sshd=SSHD)
    log = (folder / f"{name}.log").open("w")
    outer = subprocess.Popen(
        ["unshare", *NAMESPACES, "--fork", "--mount-proc", "--kill-child", "bash", "-c", script],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    wait_until(lambda: outer.poll() is not None or "Server listening" in (folder / f"{name}.log").read_text(), name)
    if outer.poll() is not None:
        raise RuntimeError(f"host {name} did not start: {(folder / f'{name}.log').read_text()}")
    return Host(name, address, outer, int(children.read_text().split()[0]), switch)


def at_switch(switch: int, *arguments: str) -> None:
    """``ip`` with ``arguments`` in the switch's network namespace."""
    subprocess.run(["nsenter", "--target", str(switch), "--net", "ip", *arguments], check=True)


def wait_until(true, what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.05)
