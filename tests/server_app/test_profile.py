"""profile=true says where a round's time went; without it nothing is told."""

from server_app.evidence.tables import profile_table
from task.wire import Cohort


def test_the_stages_add_up_to_the_round(federate):
    ran = federate("rounds=2", "model.hidden=[8]", "profile=true", nodes=2)
    for line in ran.rounds:
        stages = line["profile"]
        assert {"sampling", "transport", "data", "training", "summing", "validation",
                "aggregation", "evaluation", "rest"} <= set(stages)  # fmt: skip
        assert all(seconds >= 0 for seconds in stages.values())
        # Both nodes work in this process here, one after the other, on what counts as two cores.
        assert sum(stages.values()) >= 0.99 * line["seconds"] - 0.001
    table = profile_table(ran.directory)
    assert table.row_count == len({name for line in ran.rounds for name in line["profile"]})


def test_nothing_is_told_unasked(federate):
    headers = []

    def look(reply):
        headers.append(Cohort.unpack(reply.content).header)
        return reply

    ran = federate("rounds=1", "model.hidden=[8]", tamper=look)
    assert "profile" not in ran.rounds[0] and profile_table(ran.directory) is None
    assert not any("clock" in header for header in headers)


def test_nonsense_of_a_node_is_ignored(federate):
    def tamper(reply):
        cohort = Cohort.unpack(reply.content)
        bad = {"training": -1.0, "data": "long", "summing": 2**70}
        header = {**cohort.header, "clock": bad}
        reply.content = Cohort(cohort.parts, cohort.errors, header, cohort.total).pack()
        return reply

    ran = federate("rounds=1", "model.hidden=[8]", "profile=true", tamper=tamper)
    assert not {"training", "data", "summing"} & set(ran.rounds[0]["profile"])
