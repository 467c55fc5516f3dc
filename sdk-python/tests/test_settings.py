import unittest

import support
from support import PluginTest

DECLARED = """
class settings:
    word = setting(str, help="a word")
    number = setting(int, default=3, help="a number")
    flag = setting(bool, default=False)
    names = setting(list, default=["a"])
    table = setting(dict, default={})
    patience = setting(Duration, default="1m")
    limit = setting(Size, default="2KB")
    anything = setting(object, default=None)

@hook("noop")
def noop():
    return passed(repr([settings.word, settings.number, settings.flag, settings.names, settings.table,
                        float(settings.patience), int(settings.limit), settings.anything]))
"""


class Settings(PluginTest):
    def start(self, source, **settings):
        core = self.core({"name": "a", "source": self.file(source), "settings": settings})
        return core

    def test_values_are_typed(self):
        core = self.start(DECLARED, word="w", number=4, flag=True, names=["b", "c"], table={"k": 1}, patience="5s", limit="1MB", anything=[1])
        self.assertEqual(core.hook("noop", ["a"])[0]["message"], "['w', 4, True, ['b', 'c'], {'k': 1}, 5.0, 1048576, [1]]")

    def test_defaults(self):
        core = self.start(DECLARED, word="w")
        self.assertEqual(core.hook("noop", ["a"])[0]["message"], "['w', 3, False, ['a'], {}, 60.0, 2048, None]")

    def test_ready_tells_of_them(self):
        declared = {setting["name"]: setting for setting in self.start(DECLARED, word="w").ready["plugins"][0]["settings"]}
        self.assertEqual(declared["word"], {"name": "word", "type": "text", "required": True, "help": "a word"})
        self.assertEqual(declared["patience"], {"name": "patience", "type": "duration", "required": False, "default": "1m", "help": ""})
        types = [setting["type"] for setting in declared.values()]
        self.assertEqual(types, ["text", "integer", "boolean", "list", "map", "duration", "size", "any"])

    def test_all_mistakes_are_told_at_once_with_their_path(self):
        answer = self.start(DECLARED, number="4", names=["a", 5], patience="5 parsecs", flg=True).ready
        self.assertEqual(answer["kind"], "init_error")
        self.assertEqual(
            [(error["path"], error["message"]) for error in answer["errors"]],
            [
                (["flg"], 'is no setting of this plugin; did you mean "flag"?'),
                (["word"], "is required: a word"),
                (["number"], "is to be an integer, not '4'"),
                (["names", 1], "is to be text, not 5"),
                (["patience"], "is to be a duration like \"5s\" or \"2m\", not '5 parsecs'"),
            ],
        )

    def test_setup_sees_the_settings_and_may_refuse_them(self):
        source = """
        class settings:
            zones = setting(list)

        @setup
        def start(plugin):
            for index, zone in enumerate(settings.zones):
                if "." not in zone:
                    raise SettingError("not a domain name", "zones", index)
            plugin.log(f"{plugin.name} has {len(settings.zones)}")
        """
        answer = self.start(source, zones=["a.example", "b"]).ready
        self.assertEqual(answer["errors"], [{"plugin": "a", "path": ["zones", 1], "message": "not a domain name"}])
        core = self.start(source, zones=["a.example"])
        self.assertEqual(core.ready["kind"], "ready")
        self.assertEqual(core.logs, [{"kind": "log", "level": "info", "message": "a has 1", "plugin": "a"}])

    def test_one_file_under_two_names_has_settings_of_its_own_in_each(self):
        path = self.file(DECLARED)
        entries = [{"name": name, "source": path, "settings": {"word": name}} for name in ("one", "two")]
        core = self.core(*entries)
        self.assertEqual([entry["message"][:8] for entry in core.hook("noop", ["one", "two"])], ["['one', ", "['two', "])

    def test_a_wrong_declaration_names_the_plugin_and_says_what_is_wrong(self):
        for source, message in (
            ("@hook('rcpt')\ndef f(adress): pass", 'f() asks for adress, but the hook "rcpt" offers session, address, parameters; did you mean "address"?'),
            ("@hook('rctp')\ndef f(): pass", 'there is no hook "rctp"; did you mean "rcpt"?'),
            ("@hook('rcpt', fields=['remote_addr'])\ndef f(): pass", 'there is no session field "remote_addr"; did you mean "remote_port"?'),
            ("@hook('rcpt')\ndef f(): pass\n@hook('rcpt')\ndef g(): pass", 'the hook "rcpt" has a function already: f()'),
        ):
            with self.stderr():
                answer = self.start(source).ready
            self.assertEqual(answer["kind"], "init_error")
            self.assertIn(message, answer["errors"][0]["message"])


if __name__ == "__main__":
    unittest.main()
