import unittest

import support
from support import CODECS
from gatepost.codec import BUILTIN
from gatepost.frames import MAX_FRAME, FrameError, FrameReader, frame


def plain(value):
    """A vector's value with its bytes as bytes."""
    if isinstance(value, dict):
        if list(value) == ["$bytes"]:
            return bytes.fromhex(value["$bytes"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def alike(value):
    """Text as bytes, so that both writings compare equal."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {key: alike(item) for key, item in value.items()}
    return [alike(item) for item in value] if isinstance(value, list) else value


def read(codec, data):
    reader = FrameReader(codec.decode)
    messages = reader.feed(data)
    reader.close()
    return messages


class Vectors(unittest.TestCase):
    def test_frames_and_messages(self):
        cases = support.vectors("frames.json")["frames"] + support.vectors("messages.json")
        self.assertGreater(len(cases), 20)
        for codec in CODECS:
            for case in cases:
                with self.subTest(case["name"], codec=codec.name):
                    value = plain(case["value"])
                    self.assertEqual(alike(read(codec, bytes.fromhex(case["hex"]))), [alike(value)])
                    self.assertEqual(alike(read(codec, frame(codec.encode(value)))), [alike(value)])

    def test_broken_frames(self):
        cases = support.vectors("frames.json")["broken"]
        self.assertGreater(len(cases), 20)
        for codec in CODECS:
            for case in cases:
                with self.subTest(case["name"], codec=codec.name):
                    with self.assertRaises(FrameError) as caught:
                        read(codec, bytes.fromhex(case["hex"]))
                    self.assertEqual(caught.exception.code, case["error"])


class Frames(unittest.TestCase):
    def test_any_cut_of_the_stream_gives_the_same_messages(self):
        stream = b"".join(frame(BUILTIN.encode({"kind": "x", "n": n, "text": "t" * n})) for n in (0, 1, 40))
        whole = read(BUILTIN, stream)
        for codec in CODECS:
            for size in range(1, len(stream)):
                reader = FrameReader(codec.decode)
                pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
                self.assertEqual([message for piece in pieces for message in reader.feed(piece)], whole)

    def test_a_frame_holds_one_mebibyte(self):
        largest = {"data": bytes(MAX_FRAME - 11)}
        for codec in CODECS:
            body = codec.encode(largest)
            self.assertEqual(len(body), MAX_FRAME)
            self.assertEqual(read(codec, frame(body)), [largest])
        with self.assertRaises(FrameError):
            frame(bytes(MAX_FRAME + 1))


class Strictness(unittest.TestCase):
    def test_text_that_looks_suspicious_is_only_text(self):
        # Every byte for which the fast codec turns to the built-in one, as part of a text or of bytes.
        message = {"text": "Пример ÇÈÉÊË Ó × Ø ÔÕ Ö €", "bytes": bytes(range(256)), "deep": [[[[[[[[[[[[[[[]]]]]]]]]]]]]]], "wide": [[]] * 20}
        for codec in CODECS:
            self.assertEqual(codec.decode(codec.encode(message)), message)

    def test_bytes_that_arrive_as_text_can_be_had_back(self):
        for codec in CODECS:
            text = codec.decode(b"\x81\xa1b\xa3\xff\xfea")["b"]
            self.assertEqual(text.encode("utf-8", "surrogateescape"), b"\xff\xfea")
            self.assertEqual(codec.decode(codec.encode({"b": text}))["b"], "??a")

    def test_keys_may_be_bytes(self):
        for codec in CODECS:
            self.assertEqual(codec.decode(b"\x81\xc4\x04kind\xa1x"), {"kind": "x"})

    def test_what_cannot_travel_is_not_encoded(self):
        for value in (1.5, object(), {1: 2}, 2**53 + 1, -(2**53) - 1):
            with self.assertRaises((TypeError, OverflowError)):
                BUILTIN.encode({"value": value})


if __name__ == "__main__":
    unittest.main()
