"""Tags every message with a header."""
import gatepost
from gatepost import Outcome, Session, passed


class settings:
    header = gatepost.setting(str, default="X-Gatepost-Tag", help="name of the header to add")
    value = gatepost.setting(str, default="seen", help="its value")


@gatepost.hook("data_post")
def data_post(session: Session) -> Outcome:
    session.add_header(settings.header, settings.value)
    return passed(f"tagged with {settings.header}")


if __name__ == "__main__":
    gatepost.run()
