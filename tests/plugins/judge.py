"""Judges each recipient by the beginning of its name: `hard` and `soft` after DATA, `late-hard` and `late-soft` where the message is to be kept.

`discard`, `quarantine` and `hold` divert the message for that recipient, and behind `all-` for everybody.
"""
import gatepost

DIVERSIONS = {"discard": gatepost.discard, "quarantine": gatepost.quarantine, "hold": gatepost.hold}


def judge(session, prefix):
    outcome = gatepost.passed("looked at each")
    for recipient in session.recipients:
        for name, divert in DIVERSIONS.items():
            if recipient.local.startswith(prefix + "all-" + name):
                return divert("looks bad")
            if recipient.local.startswith(prefix + name):
                outcome = outcome.for_recipient(recipient, divert("looks bad"))
        if recipient.local.startswith(prefix + "hard"):
            outcome = outcome.for_recipient(recipient, gatepost.deny("not wanted", code=554, enhanced="5.7.1"))
        elif recipient.local.startswith(prefix + "soft"):
            outcome = outcome.for_recipient(recipient, gatepost.denysoft("not now", code=450, enhanced="4.2.1"))
    return outcome


@gatepost.hook("data_post", fields=["recipients"])
def data_post(session):
    return judge(session, "")


@gatepost.hook("queue", fields=["recipients"])
def queue(session):
    return judge(session, "late-")


gatepost.run()
