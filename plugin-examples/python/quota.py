"""Refuses a message for those recipients whose mailbox has no room for it."""
import gatepost
from gatepost import Outcome, Session, Size, fail, passed


class settings:
    limit = gatepost.setting(Size, default="100MB", help="what a mailbox may hold; users may have limits of their own")


# A full mailbox has no room for the mail of friends either.
gatepost.policy(immune=False)


@gatepost.hook("data_post", fields=["recipients", "size"])
def data_post(session: Session) -> Outcome:
    # Lines of address and bytes, as whoever looks after the mailboxes writes them.
    used = dict(line.lower().rsplit(None, 1) for line in session.core.config("mailbox_sizes").result())
    recipients = session.recipients
    full = [address for address in recipients if int(used.get(str(address).lower(), 0)) + session.size > settings.limit]
    outcome = passed(f"room in {len(recipients) - len(full)} of {len(recipients)} mailboxes")
    for address in full:
        outcome = outcome.for_recipient(address, fail("mailbox full"))
    return outcome


if __name__ == "__main__":
    gatepost.run()
