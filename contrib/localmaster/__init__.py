"""
A small build master that embeds buildapi: ``python contrib/localmaster CONFIG``.

Read it in this order to see how embedding works:

    master      the service: starts buildapi, says what it has, stops in the right order
    register    builders, workers and schedulers, by the update methods
    dispatch    from the events of build requests to builds; stop and cancel
    builds      one build: properties, steps, results           ending   ... and its end
    steps       one step: its command and its logs              feed     text in batches

The rest is what any master needs: ``config`` (the TOML file), ``process``, ``leash`` and ``lines``
(commands as processes), ``tail`` (files as logs), ``gitpoller``, ``console``, ``command``.
"""
