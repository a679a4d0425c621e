"""Serve the part of secure sums that needs no data: keys, shares, signatures."""

from __future__ import annotations

from flwr.app import Context, Message, RecordDict

from client_app.answering import excused, reply
from client_app.site import Site
from conf.errors import FedproofError
from task.profiling import Stopwatch
from task.wire import Cohort


def secure_clients(message: Message, context: Context) -> Message:
    """Do each client's part in a sum that hides its answer."""

    def answer(site: Site, cohort: Cohort) -> Cohort:
        secure = site.secure(str(context.run_id))
        if secure is None:
            raise FedproofError("this run has aggregation=none: there is nothing to be unmasked.")
        clock = Stopwatch()
        parts: dict[str, RecordDict] = {}
        errors: dict[str, str] = {}
        for client, told in cohort.parts.items():
            with excused(errors, client), clock.stage("secure aggregation"):
                parts[client] = secure.answer(client, told)
        header = {"clock": clock.seconds} if site.settings.profile else {}
        return Cohort(parts, errors, header)

    return reply(message, context, answer)
