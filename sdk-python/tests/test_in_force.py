"""Settings in force for the recipients at hand: another instance of the plugin, made from them."""

import sys
import unittest

import support
from support import PluginTest
import gatepost

PARROT = """
count = 0

class settings:
    word = setting(str)
    most = setting(Size, default="1KB")

@setup
def start(plugin):
    if settings.word == "silence":
        raise SettingError("nobody can say that", "word")
    if settings.word == "gone":
        raise OSError("no such parrot")

@hook("rcpt", "data_post")
def say(session):
    global count
    count += 1
    session.seen = getattr(session, "seen", 0) + 1
    return passed(f"{settings.word}, {int(settings.most)}, {count}, {session.seen}")

@hook("deny", "reset_transaction", "disconnect")
def over(session):
    session.plugin.log(f"{settings.word} heard {session._turn.hook}")
"""


class InForce(PluginTest):
    def parrots(self, source=PARROT):
        path = self.file(source)
        return self.core(*[{"name": name, "source": path, "settings": {"word": name.upper()}} for name in "ab"])

    def say(self, core, *plugins, hook="rcpt", session="s1", **settings):
        entries = core.hook(hook, plugins, session, settings=settings)
        return [f"{entry.get('disposition')} {entry.get('message')}" for entry in entries]

    def test_they_are_another_instance_of_the_plugin_they_are_for(self):
        for source in (PARROT, PARROT.replace("def say", "async def say")):
            core = self.parrots(source)
            self.assertEqual(self.say(core, "a", "b"), ["pass A, 1024, 1, 1", "pass B, 1024, 1, 1"])
            own = {"word": "c", "most": "2KB"}
            self.assertEqual(self.say(core, "a", "b", a=own), ["pass c, 2048, 1, 1", "pass B, 1024, 2, 2"])
            self.assertEqual(self.say(core, "a", "b", a=own), ["pass c, 2048, 2, 2", "pass B, 1024, 3, 3"])
            self.assertEqual(self.say(core, "a", "b"), ["pass A, 1024, 2, 2", "pass B, 1024, 4, 4"])
            self.assertEqual(self.say(core, "a", a={"word": "c"}), ["pass c, 1024, 1, 1"], "complete, so that there is the default")
            self.assertEqual(self.say(core, "a", a={"word": b"c"}, session="s2"), ["pass c, 1024, 1, 1"], "text may come as bytes")

    def test_settings_that_are_refused_are_an_error_of_that_plugin(self):
        core = self.parrots()
        for own, said in (
            ({"word": "silence"}, "word: nobody can say that"),
            ({"wort": "c", "word": "c", "most": "lots"}, "wort: is no setting of this plugin; did you mean \"word\"?; most: is to be a size like \"10MB\", not 'lots'"),
            ({}, "word: is required"),
            ({"word": "gone"}, "cannot be started: OSError: no such parrot"),
        ):
            with self.stderr():
                entries = self.say(core, "b", "a", "b", a=own)
            self.assertEqual(entries[1:], [f"error the settings in force cannot be used: {said}"])
        self.assertEqual(self.say(core, "a"), ["pass A, 1024, 1, 1"])

    def test_the_plugin_takes_part_where_its_first_instance_does(self):
        core = self.parrots("""
        class settings:
            word = setting(str)
        @hook("rcpt")
        def rcpt(): return passed(settings.word)
        if "again" in vars(gatepost):
            @hook("data_post")
            def data_post(): return passed(settings.word)
        """)
        self.addCleanup(vars(gatepost).pop, "again")
        gatepost.again = True
        self.assertEqual(self.say(core, "a", a={"word": "c"}), ["pass c"])
        self.assertEqual(self.say(core, "a", "b", hook="data_post", a={"word": "c"}), ["None None", "None None"])

    def test_the_instance_that_was_not_asked_for_longest_is_forgotten(self):
        core = self.parrots()
        before = len(sys.modules)
        words = [f"w{number}" for number in range(65)]
        for word in (*words[:64], words[0], words[64]):
            self.say(core, "a", a={"word": word})
        self.assertEqual(len(sys.modules) - before, 64)
        for number, heard in ((0, 3), (64, 2), (2, 2), (1, 1)):
            self.assertEqual(self.say(core, "a", a={"word": f"w{number}"}), [f"pass w{number}, 1024, {heard}, {heard}"])

    def test_instances_that_were_asked_about_a_session_are_told_of_its_end(self):
        core = self.parrots()
        self.say(core, "a", a={"word": "c"})
        self.say(core, "a", a={"word": "d"}, session="s2")
        for hook, heard in (("deny", "AB"), ("reset_transaction", "ABc"), ("disconnect", "ABc"), ("disconnect", "AB")):
            core.logs.clear()
            core.send_event(hook, ["a", "b"])
            core.hook("noop", [])
            self.assertEqual([line["message"] for line in core.logs], [f"{word} heard {hook}" for word in heard])

    def test_a_program_of_its_own_makes_them_as_well(self):
        core = self.process([self.file(PARROT)])
        core.greet()
        core.init([{"name": name, "settings": {"word": name.upper()}} for name in "ab"])
        self.assertEqual(self.say(core, "a", "b", a={"word": "c"}), ["pass c, 1024, 1, 1", "pass B, 1024, 1, 1"])
        self.assertEqual(self.say(core, "a", "b"), ["pass A, 1024, 1, 1", "pass B, 1024, 2, 2"])


if __name__ == "__main__":
    unittest.main()
