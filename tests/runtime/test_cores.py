"""The number of cores to use: affinity, hyper-threads and quotas of control groups."""

import os

import pytest

from runtime import cores


@pytest.fixture
def allowed(monkeypatch):
    """Pretend that the process may use these CPUs."""
    return lambda cpus: monkeypatch.setattr(os, "sched_getaffinity", lambda _: cpus, raising=False)


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def siblings(root, groups):
    cpus = {cpu: group for group in groups for cpu in group}
    names = {cpu: f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list" for cpu in cpus}
    write(root, {names[cpu]: ",".join(map(str, group)) + "\n" for cpu, group in cpus.items()})


def test_here_it_is_a_number_of_cores():
    assert 1 <= cores.physical_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    "cpus, ref", [({0, 1, 2, 3}, {0, 1}), ({0, 2}, {0}), ({1, 3}, {1}), ({2, 3}, {2, 3}), ({0}, {0})]
)
def test_two_hyper_threads_are_one_core(tmp_path, allowed, cpus, ref):
    siblings(tmp_path, [(0, 2), (1, 3)])
    allowed(cpus)
    assert cores.first_threads(tmp_path) == ref
    assert cores.physical_cores(tmp_path) == len(ref)


def test_without_a_topology_every_cpu_is_a_core(tmp_path, allowed):
    allowed({4, 5, 6})
    assert cores.first_threads(tmp_path) == {4, 5, 6}


def test_without_affinity_all_cpus_count(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.first_threads(tmp_path) == set()
    assert cores.physical_cores(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.physical_cores(tmp_path) == 1


@pytest.mark.parametrize(
    "text, ref", [("max 100000", 8), ("150000 100000", 2), ("200000 100000", 2), ("1000 100000", 1)]
)
def test_a_quota_of_cgroup_2_bounds_the_threads(tmp_path, allowed, text, ref):
    allowed(set(range(8)))
    write(tmp_path, {"proc/self/cgroup": "0::/box/inner\n", "sys/fs/cgroup/box/inner/cpu.max": text + "\n"})
    assert cores.physical_cores(tmp_path) == ref


def test_the_least_quota_of_all_groups_above_counts(tmp_path, allowed):
    allowed(set(range(8)))
    groups = {"sys/fs/cgroup/a/b/cpu.max": "700000 100000", "sys/fs/cgroup/a/cpu.max": "300000 100000"}
    write(tmp_path, {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/cpu.max": "max 100000"} | groups)
    assert cores.cpu_quota(tmp_path) == 3
    assert cores.physical_cores(tmp_path) == 3


@pytest.mark.parametrize("quota, ref", [("-1", None), ("50000", 0.5), ("250000", 2.5), ("", None), ("no number", None)])
def test_a_quota_of_cgroup_1(tmp_path, quota, ref):
    folder = "sys/fs/cgroup/cpu,cpuacct/box/"
    write(tmp_path, {folder + "cpu.cfs_quota_us": quota, folder + "cpu.cfs_period_us": "100000\n"})
    write(tmp_path, {"proc/self/cgroup": "5:memory:/box\n4:cpu,cpuacct:/box\nnonsense\n"})
    assert cores.cpu_quota(tmp_path) == ref


def test_no_control_groups_are_no_limit(tmp_path):
    assert cores.cpu_quota(tmp_path) is None
