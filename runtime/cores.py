"""How many threads to use: the physical cores that this process may have, now.

    affinity     CPUs that the process was given (taskset, a container's cpuset), each core counted once
    quota        CPU time that its control groups allow: `cpu.max` = "150000 100000" is 1.5 CPUs, rounded up

Two hyper-threads of a core share the units that do the work here, so a second one adds nothing. A quota stops all
threads of a group for the rest of each period: more threads than it pays for only wait for one another.
"""

import math
import os
from pathlib import Path


def physical_cores(root: Path = Path("/")) -> int:
    """Cores to use, at least 1. `root` is where /proc and /sys are looked for."""
    cores = len(first_threads(root)) or os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def first_threads(root: Path = Path("/")) -> set[int]:
    """One CPU of every physical core that this process may use; empty where the system does not tell (not Linux)."""
    try:
        allowed = sorted(os.sched_getaffinity(0))
    except AttributeError:
        return set()
    first: dict[str, int] = {}
    for cpu in allowed:
        try:
            siblings = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            core = siblings.read_text().strip()
        except OSError:
            core = str(cpu)
        first.setdefault(core, cpu)
    return set(first.values())


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the control groups of this process allow, the least of them; None without a limit."""
    try:
        entries = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return None
    quotas = []
    for _, controllers, path in (entry for entry in entries if len(entry) == 3):
        if controllers == "":  # version 2
            mount, files = "sys/fs/cgroup", ("cpu.max",)
        elif "cpu" in controllers.split(","):
            mount, files = f"sys/fs/cgroup/{controllers}", ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        group = Path(path.lstrip("/"))
        for folder in [root / mount / group, *(root / mount / parent for parent in group.parents)]:
            try:
                # "max", the word for no limit, is refused by int() as it should be; version 1 writes -1
                quota, period = (int(word) for file in files for word in (folder / file).read_text().split())
            except (OSError, ValueError):
                continue
            if quota > 0 and period > 0:
                quotas.append(quota / period)
    return min(quotas, default=None)
