"""Serve the part of secure sums that needs no data: keys, shares, signatures."""

from __future__ import annotations

from flwr.app import Context, Message

from client_app.answering import excused, reply
from client_app.exit import Answer
from client_app.release import Public
from client_app.request import Request
from client_app.site import Site
from conf.errors import FedproofError
from task.profiling import Stopwatch


def secure_clients(message: Message, context: Context) -> Message:
    """Do each client's part in a sum that hides its answer."""

    def answer(site: Site, request: Request) -> Answer:
        secure = site.secure(request.run)
        if secure is None:
            raise FedproofError("this run has aggregation=none: there is nothing to be unmasked.")
        clock = Stopwatch()
        result = Answer()
        for client, told in request.exchanges.items():
            with excused(result.failures, client), clock.stage("secure aggregation"):
                result.parts[client] = Public.of(secure.answer(client, told))
        if site.settings.profile:
            result.facts["clock"] = clock.seconds
        return result

    return reply(message, context, answer)
