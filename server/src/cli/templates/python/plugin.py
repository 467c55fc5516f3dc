"""NAME: refuses recipients by a list. Change it into what you need."""
import gatepost
from gatepost import Address, Outcome, fail, skip


class settings:
    addresses = gatepost.setting(list, default=[], help="recipients to refuse")


@gatepost.hook("rcpt")
def rcpt(address: Address) -> Outcome:
    if str(address).lower() in settings.addresses:
        return fail("no such user here")
    return skip("not listed")


if __name__ == "__main__":
    gatepost.run()
