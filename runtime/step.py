"""The step function: one call reads tokens through a whole table of operations, on all threads, without Python between.

A table has one row of 88 int64 for each operation, on cache lines of its own:

    0       address of the kernel
    1, 2    units of work that are always there; units for each token
    3, 5    units for each cut of the positions (runtime.kernels.attention); units for each six tokens
    4       1: the next row may run beside this one
    8..71   the record of the operation: what `args` points to
    72      ticket: number of the job << 32 | the next part to take
    80      parts that are done

All threads run the same rows. The units of a row are handed out in parts by its ticket, and a row is over when all
its parts are done: nobody waits for a thread that holds no part, so a thread that the system has put aside costs only
the part it was at. A thread that comes late finds the tickets gone and catches up; one that is still at an old job
sees it by the number. A thread that waits spins for a while and then gives its core away between looks.

A late thread may still look at the table of a job that is over, so a table is given up only after `empty` has seen all
followers leave.

The shared memory `sync`: at byte 0 the number of the job, from byte 64 its table, first row, end row, tokens and start,
at byte 128 how many followers are inside a job.
"""

from runtime.jit import entry, inlined
from runtime.simd import (
    atomic_add,
    atomic_load,
    atomic_store,
    call_kernel,
    compare_and_swap,
    give_way,
    load_i64,
    spin_pause,
    window,
)

ROW = 88
RECORD, TICKET, DONE = 64, 576, 640  # bytes in a row
JOB, ORDER, INSIDE, SYNC = 0, 64, 128, 192
PARTS = 8  # for each thread: small enough to even out, large enough to stream
SPINS = 2000  # looks before a waiting thread gives its core away: about 30 us
CUT = 256  # positions


@inlined
def parts_of(rows, at, tokens, start, threads):
    units = load_i64(rows, at + 8) + load_i64(rows, at + 16) * tokens
    units += load_i64(rows, at + 24) * ((start + tokens + CUT - 1) // CUT) + load_i64(rows, at + 40) * (
        (tokens + 5) // 6
    )
    return units, min(units, threads * PARTS) if threads > 1 else min(units, 1)


@inlined
def run_rows(rows, table, first, end, tokens, start, thread, threads, job):
    """Run what is left of rows first..end of job number `job`."""
    waiting = first  # the first row that may not be over
    for i in range(first, end):
        at = i * ROW * 8
        units, parts = parts_of(rows, at, tokens, start, threads)
        while True:
            ticket = atomic_load(rows, at + TICKET)
            if ticket >> 32 != job:
                return
            part = ticket & 0xFFFFFFFF
            if part >= parts:
                break
            if compare_and_swap(rows, at + TICKET, ticket, ticket + 1):
                lo, hi = units * part // parts, units * (part + 1) // parts
                call_kernel(load_i64(rows, at), table + at + RECORD, tokens, start, thread, lo, hi)
                atomic_add(rows, at + DONE, 1)
        if load_i64(rows, at + 32) == 1 and i + 1 < end:
            continue
        for row in range(waiting, i + 1):
            here = row * ROW * 8
            _, parts = parts_of(rows, here, tokens, start, threads)
            looks = 0
            while atomic_load(rows, here + DONE) < parts:
                if atomic_load(rows, here + TICKET) >> 32 != job:
                    return
                spin_pause()
                looks += 1
                if looks > SPINS:
                    give_way()
        waiting = i + 1


@entry(8)
def lead(sync_address, table, first, end, tokens, start, threads, job):
    """Run rows first..end as thread 0, with whoever follows as threads 1..; job is a number never used before."""
    sync, rows = window(sync_address, SYNC), window(table, end * ROW * 8)
    for i in range(first, end):
        atomic_store(rows, i * ROW * 8 + DONE, 0)
        atomic_store(rows, i * ROW * 8 + TICKET, job << 32)
    if threads > 1:
        atomic_store(sync, JOB, -1)  # whoever reads the order now will see that it is being written
        atomic_store(sync, ORDER, table)
        atomic_store(sync, ORDER + 8, first)
        atomic_store(sync, ORDER + 16, end)
        atomic_store(sync, ORDER + 24, tokens)
        atomic_store(sync, ORDER + 32, start)
        atomic_store(sync, JOB, job)
    run_rows(rows, table, first, end, tokens, start, 0, threads, job)
    return job


@entry(5)
def follow(sync_address, thread, threads, seen, patience):
    """Take part in jobs after number `seen`; return the last one's number when none has come for `patience` looks."""
    sync = window(sync_address, SYNC)
    looks = 0
    while looks < patience:
        job = atomic_load(sync, JOB)
        if job == seen or job < 0:
            spin_pause()
            looks += 1
            if looks > SPINS:
                give_way()
            continue
        atomic_add(sync, INSIDE, 1)
        if atomic_load(sync, JOB) != job:  # it may have been closed before we were counted
            atomic_add(sync, INSIDE, -1)
            continue
        table, first, end = atomic_load(sync, ORDER), atomic_load(sync, ORDER + 8), atomic_load(sync, ORDER + 16)
        tokens, start = atomic_load(sync, ORDER + 24), atomic_load(sync, ORDER + 32)
        seen, looks = job, 0
        if atomic_load(sync, JOB) == job:  # else it may be half of one order and half of another
            run_rows(window(table, end * ROW * 8), table, first, end, tokens, start, thread, threads, job)
        atomic_add(sync, INSIDE, -1)
    return seen


@entry(1)
def empty(sync_address):
    """Let no follower into the last job any more, and wait until those inside have left."""
    sync = window(sync_address, SYNC)
    atomic_store(sync, JOB, -1)
    looks = 0
    while atomic_add(sync, INSIDE, 0) > 0:  # not a plain load, which could be done before the store above is seen
        spin_pause()
        looks += 1
        if looks > SPINS:
            give_way()
    return looks
