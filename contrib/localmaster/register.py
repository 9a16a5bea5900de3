"""What the database knows of this master: its builders, workers and schedulers."""

from __future__ import annotations

import platform

from buildapi import BuildAPI

from .config import Builder, Config
from .dispatch import Bench, Worker


async def register(api: BuildAPI, masterid: int, config: Config) -> list[Bench]:
    """Say what is configured, and that it's there; return the builders, ready for work."""
    updates = api.data.updates
    benches = [await _builder(api, builder) for builder in config.builders]
    await updates.updateBuilderList(masterid, [builder.name for builder in config.builders])
    info = {"host": platform.node(), "system": platform.system(), "version": platform.release()}
    for bench in benches:
        for worker in bench.free:
            if (await api.data.get(("workers", worker.workerid)))["graceful"]:
                # It was to stop, it did, and here it is again; a pause goes on.
                await updates.set_worker_graceful(worker.workerid, False)
            await updates.workerConfigured(worker.workerid, masterid, [bench.builderid])
            await updates.workerConnected(worker.workerid, masterid, info)
    for scheduler in config.forceschedulers:
        await own_scheduler(api, masterid, scheduler.name)
    return benches


async def own_scheduler(api: BuildAPI, masterid: int, name: str) -> int:
    """Return the id of a scheduler, which is this master's from now on."""
    schedulerid = await api.data.updates.findSchedulerId(name)
    await api.data.updates.trySetSchedulerMaster(schedulerid, masterid)
    return schedulerid


async def _builder(api: BuildAPI, builder: Builder) -> Bench:
    updates = api.data.updates
    builderid = await updates.findBuilderId(builder.name)
    await updates.updateBuilderInfo(
        builderid, builder.description, None, None, None, list(builder.tags)
    )
    workers = [Worker(await updates.findWorkerId(name), name) for name in builder.worker_names]
    return Bench(builder, builderid, workers)
