"""Refuses recipients by a list."""
import gatepost
from gatepost import Address, Outcome, fail, skip


class settings:
    addresses = gatepost.setting(list, help="recipients to refuse")
    message = gatepost.setting(str, default="no such user here", help="what the client is told")


@gatepost.hook("rcpt")
def rcpt(address: Address) -> Outcome:
    if str(address).lower() in [refused.lower() for refused in settings.addresses]:
        return fail(settings.message)
    return skip("not listed")


if __name__ == "__main__":
    gatepost.run()
