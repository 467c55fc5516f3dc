"""Passes silently on five hooks: what remains is the cost of asking."""
import gatepost


@gatepost.hook("connect")
@gatepost.hook("helo")
@gatepost.hook("ehlo")
@gatepost.hook("mail")
@gatepost.hook("rcpt")
@gatepost.hook("data_post")
def silent():
    return None


if __name__ == "__main__":
    gatepost.run()
