"""Plugin processes as the server starts them: descriptors, standard streams, ends and exit codes."""

import os
import re
import signal
import socket
import time
import unittest
from unittest import mock

import support
from support import PluginTest
from gatepost.channel import Channel
from gatepost.frames import frame
from gatepost.msgpack_builtin import encode
from gatepost.testing import FakeCore

ANSWERS = """
@hook("noop")
def noop(session):
    return passed("here")
"""


class Write(unittest.TestCase):
    def test_a_write_that_takes_only_part_goes_on(self):
        taken = []
        with mock.patch("os.write", lambda descriptor, data: taken.append(bytes(data[:3])) or len(taken[-1])):
            Channel(0, 1).write(b"abcdefgh")
        self.assertEqual(taken, [b"abc", b"def", b"gh"])


class ProcessTest(PluginTest):
    def start(self, source=ANSWERS, **environment):
        core = self.process([self.file(source)], **environment)
        core.greet()
        core.ready = core.init([{"name": "vip", "source": "ignored"}])
        return core

    def finish(self, core):
        core.close()
        out, err = core.process.communicate(timeout=20)
        return core.process.returncode, out, err


class Start(ProcessTest):
    def test_a_file_is_a_plugin_under_whatever_name(self):
        for codec in ("builtin", ""):
            core = self.start(GATEPOST_CODEC=codec)
            self.assertEqual(core.hook("noop", ["vip"]), [{"plugin": "vip", "disposition": "pass", "message": "here"}])
            self.assertEqual(self.finish(core), (0, "", ""))

    def test_hello_comes_without_waiting(self):
        core = self.process([self.file(ANSWERS)])
        hello = core.receive()
        self.assertRegex(hello.pop("sdk"), r"^gatepost-python \d")
        self.assertEqual(hello, {"kind": "hello", "protocol": "gatepost-plugin", "version": [1, 0], "features": ["cancel", "defer", "segments", "settings", "unfinished"]})

    def test_two_names_of_one_file_are_two_plugins(self):
        core = self.process([self.file("class settings:\n    word = setting(str)\n@hook('noop')\ndef noop(): return passed(settings.word)\n")])
        core.greet()
        core.init([{"name": name, "settings": {"word": name}} for name in ("one", "two")])
        self.assertEqual([entry["message"] for entry in core.hook("noop", ["one", "two"])], ["one", "two"])

    def test_one_socket(self):
        ours, theirs = socket.socketpair()
        process = self.spawn([self.file(ANSWERS)], GATEPOST_FD=str(theirs.fileno()), pass_fds=(theirs.fileno(),))
        theirs.close()
        core = FakeCore(os.dup(ours.fileno()), ours.detach())
        core.greet()
        core.init([{"name": "vip"}])
        self.assertEqual(core.hook("noop", ["vip"])[0]["message"], "here")
        core.close()
        self.assertEqual(process.wait(20), 0)

    def test_a_host_of_several_files(self):
        self.file(ANSWERS, "one.py")
        self.file("from helper import word\n@hook('noop')\ndef noop(): return passed(word)\n", "two.py")
        with open(self.folder + "/helper.py", "w") as file:
            file.write("word = 'helped'\n")
        core = self.process(["-m", "gatepost"])
        core.greet()
        ready = core.init([{"name": "x", "source": self.folder + "/one.py"}, {"name": "y", "source": "two", "dirs": ["/nowhere", self.folder]}])
        self.assertEqual(ready["kind"], "ready")
        self.assertEqual([entry["message"] for entry in core.hook("noop", ["x", "y"])], ["here", "helped"])

    def test_a_file_that_is_not_there_or_is_broken(self):
        self.file("def broken(:", "broken.py")
        core = self.process(["-m", "gatepost"])
        core.greet()
        entries = [{"name": "x", "source": "absent.py"}, {"name": "y"}, {"name": "z", "source": self.folder + "/broken.py"}]
        answer = core.init(entries)
        self.assertEqual([error["plugin"] for error in answer["errors"]], ["x", "y", "z"])
        self.assertIn('there is no plugin file "absent.py"', answer["errors"][0]["message"])
        self.assertIn("needs a source", answer["errors"][1]["message"])
        self.assertIn("SyntaxError", answer["errors"][2]["message"])

    def test_by_hand_it_says_how_it_is_meant_to_be_run(self):
        for arguments, text in (([self.file(ANSWERS)], "plugin.py is a Gatepost plugin"), (["-m", "gatepost"], "hosts Gatepost plugins")):
            process = self.spawn(arguments)
            _, err = process.communicate(timeout=20)
            self.assertEqual(process.returncode, 2)
            self.assertIn(text, err)
            self.assertIn("run = [", err)

    def test_descriptors_that_cannot_be(self):
        for value in ("x", "3,4,5", "77"):
            process = self.spawn([self.file(ANSWERS)], GATEPOST_FD=value)
            _, err = process.communicate(timeout=20)
            self.assertEqual(process.returncode, 2)
            self.assertIn("the channel cannot be used", err)

    def test_standard_output_is_not_the_channel(self):
        core = self.start("print('while loading')\n@hook('noop')\ndef noop():\n    print('from a hook')\n    os.write(1, b'raw')\n    return passed('here')\n")
        self.assertEqual(core.hook("noop", ["vip"])[0]["message"], "here")
        self.assertEqual(self.finish(core), (0, "while loading\nfrom a hook\nraw", ""))

    def test_what_is_printed_comes_line_by_line(self):
        core = self.start("@hook('noop')\ndef noop():\n    print('at once')\n")
        core.hook("noop", ["vip"])
        self.assertEqual(core.process.stdout.readline(), "at once\n")

    def test_a_plugins_own_child_keeps_no_descriptor_of_the_channel(self):
        # os.posix_spawn closes nothing by itself. One child is started while the file is loaded, one by a hook.
        core = self.start(f"""
        def child(name):
            command = f"ls -l /proc/self/fd > {self.folder}/{{name}}"
            os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ), 0)
        child("loading")
        @hook("noop")
        def noop():
            child("running")
            return passed("done")
        """)
        self.assertEqual(core.hook("noop", ["vip"])[0]["message"], "done")
        channel = {os.readlink(f"/proc/self/fd/{fd}") for fd in (core._reading, core._writing)}
        for name in ("loading", "running"):
            with open(f"{self.folder}/{name}") as file:
                held = set(re.findall(r"pipe:\[\d+\]", file.read()))
            self.assertTrue(held)
            self.assertFalse(channel & held)

    def test_ctrl_c_is_the_servers_to_handle(self):
        core = self.start()
        core.process.send_signal(signal.SIGINT)
        self.assertEqual(core.hook("noop", ["vip"])[0]["message"], "here")


class End(ProcessTest):
    def test_end_of_file(self):
        core = self.start()
        core.send({"kind": "goodbye"})
        self.assertEqual(core.hook("noop", ["vip"])[0]["message"], "here")
        self.assertEqual(self.finish(core), (0, "", ""))

    def test_end_of_file_while_a_deferred_function_hangs(self):
        core = self.start("@hook('noop')\ndef noop():\n    return defer('rcpt', time.sleep, 60)\n")
        core.hook("noop", ["vip"])
        started = time.monotonic()
        self.assertEqual(self.finish(core)[0], 0)
        self.assertLess(time.monotonic() - started, 5)

    def test_another_major_version(self):
        for theirs, upgrade in (([2, 1], "upgrade the Python package gatepost"), ([0, 9], "upgrade the server")):
            core = self.process([self.file(ANSWERS)])
            core.greet(version=theirs, server="gatepost 9.9")
            self.assertEqual(core.receive()["kind"], "error")
            code, _, err = self.finish(core)
            self.assertEqual(code, 1)
            self.assertIn(f"speaks version 1.0 of the plugin protocol, gatepost 9.9 speaks {theirs[0]}.{theirs[1]}: {upgrade}", err)

    def test_another_minor_version(self):
        core = self.process([self.file(ANSWERS)])
        core.greet(version=[1, 7], features=["telepathy"])
        self.assertEqual(core.init([{"name": "vip", "colour": "blue"}], more=1)["kind"], "ready")

    def test_another_protocol(self):
        core = self.process([self.file(ANSWERS)])
        core.greet(protocol="milter")
        self.assertIn("does not speak gatepost-plugin", self.finish(core)[2])

    def test_a_broken_frame(self):
        for data, what in ((b"\0\0\0\1\xc1", "not_a_map"), (b"\xff\xff\xff\xff", "too_long"), (b"\0\0\0\0", "empty"), (b"\0\0\0\x09half", "truncated")):
            core = self.start()
            core.send_bytes(data)
            code, _, err = self.finish(core)
            self.assertEqual(code, 1)
            self.assertIn(f"gatepost: broken frame from the server ({what})", err)

    def test_a_broken_frame_while_a_hook_waits_for_a_call(self):
        core = self.start("@hook('noop')\ndef noop(session):\n    session.core.dns('a').result()\n")
        core.send_hook("noop", ["vip"])
        self.assertEqual(core.receive()["kind"], "call")
        core.send_bytes(b"\0\0\0\0")
        code, _, err = self.finish(core)
        self.assertEqual(code, 1)
        self.assertIn("broken frame", err)

    def test_a_broken_frame_in_an_event_loop(self):
        core = self.start("@hook('noop')\nasync def noop(): pass\n")
        core.send_bytes(b"\0\0\0\0")
        self.assertEqual(self.finish(core)[0], 1)

    def test_a_message_that_makes_no_sense_ends_the_process_with_a_reason(self):
        core = self.start()
        core.send_bytes(frame(encode({"kind": "hook", "id": "x", "hook": "noop", "plugins": 7})))
        self.assertEqual(core.receive()["kind"], "error")
        self.assertEqual(self.finish(core)[0], 1)


class Attach(PluginTest):
    def setUp(self):
        super().setUp()
        self.path = self.folder + "/vip.sock"

    def listen(self):
        process = self.spawn([self.file("class settings:\n    word = setting(str, default='none')\n@hook('noop')\ndef noop(): return passed(settings.word)\n"), "--listen", "unix:" + self.path])
        self.assertIn("listening", process.stderr.readline())
        return process

    def attach(self):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(20)
        connection.connect(self.path)
        core = FakeCore(os.dup(connection.fileno()), connection.detach())
        self.addCleanup(core.close)
        core.greet()
        return core

    def test_one_channel_after_another_and_several_at_once(self):
        self.listen()
        first, second = self.attach(), self.attach()
        first.init([{"name": "one", "settings": {"word": "first"}}])
        second.init([{"name": "two", "settings": {"word": "second"}}])
        self.assertEqual(first.hook("noop", ["one"])[0]["message"], "first")
        self.assertEqual(second.hook("noop", ["two"])[0]["message"], "second")
        first.close()
        third = self.attach()
        third.init([{"name": "three"}])
        self.assertEqual(third.hook("noop", ["three"])[0]["message"], "none")

    def test_a_broken_frame_ends_its_connection_only(self):
        process = self.listen()
        core = self.attach()
        core.send_bytes(b"\0\0\0\0")
        with self.assertRaises(EOFError):
            core.receive()
        self.assertIn("broken frame", process.stderr.readline())
        self.assertEqual(self.attach().init([{"name": "x"}])["kind"], "ready")

    def test_a_socket_left_over_is_replaced_and_one_in_use_is_not(self):
        first = self.listen()
        second = self.spawn([self.folder + "/plugin.py", "--listen", "unix:" + self.path])
        _, err = second.communicate(timeout=20)
        self.assertEqual(second.returncode, 1)
        self.assertIn(f"cannot listen on {self.path}", err)
        first.kill()
        first.wait()
        self.listen()
        self.attach()

    def test_another_kind_of_address(self):
        process = self.spawn([self.file(ANSWERS), "--listen", "tcp:25"])
        self.assertIn("--listen takes unix:PATH", process.communicate(timeout=20)[1])
        self.assertEqual(process.returncode, 2)


if __name__ == "__main__":
    unittest.main()
