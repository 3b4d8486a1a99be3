"""Runs the `stream` of the PyPI package `kubernetes`, unmodified, against one container.

Whatever the kubeconfig names answers: an API server, or a gateway in front of one. Each check prints the promise it
proves; the exit code is 0 only when all hold. The container needs a busybox or better.
"""

import argparse
import hashlib
import json
import sys
import time
import traceback

from kubernetes import client, config
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream
from kubernetes.stream.ws_client import RESIZE_CHANNEL, V5_CHANNEL_PROTOCOL

# Seconds that one exec may take. Generous: a machine that runs the tests of everything else is slow.
LIMIT = 60
LARGE = 5 * 1024 * 1024


class Broken(Exception):
    """A promise that does not hold; says what was seen."""


def expect(actual, expected, what):
    if actual != expected:
        raise Broken(f"{what}: expected {shorten(expected)}, got {shorten(actual)}")


def shorten(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-60:]} ({len(value)} long)"


class Container:
    def __init__(self, kubeconfig, namespace, pod, container):
        self.api = client.CoreV1Api(api_client=config.new_client_from_config(kubeconfig))
        self.where = {"name": pod, "namespace": namespace, "container": container}

    def open(self, *command, stdin=False, tty=False, binary=False):
        """The client as it is once the server has taken the command, before anything is read."""
        return stream(
            self.api.connect_get_namespaced_pod_exec,
            **self.where,
            command=list(command),
            stdin=stdin,
            stdout=True,
            # With a terminal there is one stream, and asking for another is an error.
            stderr=not tty,
            tty=tty,
            binary=binary,
            _preload_content=False,
        )

    def run(self, *command, binary=False):
        """stdout, stderr and exit code of a command that reads nothing."""
        opened = self.open(*command, binary=binary)
        opened.run_forever(timeout=LIMIT)
        if opened.is_open():
            opened.close()
            raise Broken(f"{command} did not end within {LIMIT} s")
        # The property leaves nothing behind: read it once, before the channels.
        return opened.read_stdout(), opened.read_stderr(), opened.returncode

    def simple(self, *command):
        """The one-line form that most scripts use: everything in one string."""
        return stream(
            self.api.connect_get_namespaced_pod_exec,
            **self.where,
            command=list(command),
            stdin=False,
            stdout=True,
            stderr=True,
            tty=False,
            _request_timeout=LIMIT,
        )


class Terminal:
    """A shell on a terminal, typed into and read as it answers."""

    def __init__(self, container, binary):
        self.binary = binary
        self.opened = container.open("sh", stdin=True, tty=True, binary=binary)
        self.seen = b"" if binary else ""

    def type(self, text):
        # str goes out in text frames, bytes in binary ones.
        self.opened.write_stdin(text.encode() if self.binary else text)

    def until(self, text):
        """Reads until TEXT has appeared since the last call, and forgets what came before its end."""
        wanted = text.encode() if self.binary else text
        deadline = time.monotonic() + LIMIT
        while wanted not in self.seen:
            if not self.opened.is_open():
                raise Broken(f"the terminal closed before {text!r} appeared; it showed {shorten(self.seen)}")
            if time.monotonic() > deadline:
                raise Broken(f"{text!r} did not appear within {LIMIT} s; the terminal showed {shorten(self.seen)}")
            self.seen += self.opened.read_stdout(timeout=1)
        self.seen = self.seen.split(wanted, 1)[1]

    def resize(self, columns, rows):
        self.opened.write_channel(RESIZE_CHANNEL, json.dumps({"Width": columns, "Height": rows}))

    def leave(self, code):
        self.type(f"exit {code}\n")
        self.opened.run_forever(timeout=LIMIT)
        expect(self.opened.is_open(), False, f"open after exit {code}")
        expect(self.opened.returncode, code, "return code of the shell")


def one_string(container):
    expect(container.simple("echo", "hello"), "hello\n", "output")


def apart(container):
    out, err, code = container.run("sh", "-c", "echo to-out; echo to-err >&2")
    expect(out, "to-out\n", "stdout")
    expect(err, "to-err\n", "stderr")
    expect(code, 0, "return code")


def exit_code(container):
    expect(container.run("sh", "-c", "exit 42"), ("", "", 42), "stdout, stderr and return code")


def missing_program(container):
    """A command that cannot start must never look like one that succeeded."""
    try:
        code = container.run("no-such-program")[2]
    except (ValueError, KeyError, TypeError):
        # The library looks for a number in the Status and there is none: a failure, reported in its own way.
        return
    if code == 0:
        raise Broken("a program that does not exist ended with return code 0")


def text_is_utf8(container):
    expect(container.run("printf", "naïve ☃ 𝄞"), ("naïve ☃ 𝄞", "", 0), "output")


def binary_is_bytes(container):
    # Every byte once; printf in the container turns the octal escapes into bytes.
    escapes = "".join(f"\\{byte:03o}" for byte in range(256))
    expect(container.run("printf", escapes, binary=True), (bytes(range(256)), b"", 0), "output")


def large(container):
    out, _, code = container.run("sh", "-c", f"seq 1 2000000 | head -c {LARGE}", binary=True)
    expect(code, 0, "return code")
    expected = "".join(f"{n}\n" for n in range(1, 900_000)).encode()[:LARGE]
    expect(len(out), LARGE, "length")
    expect(hashlib.sha256(out).hexdigest(), hashlib.sha256(expected).hexdigest(), "SHA-256")


def large_stderr_beside_stdout(container):
    out, err, code = container.run("sh", "-c", "seq 1 100000; seq 1 100000 >&2")
    expected = "".join(f"{n}\n" for n in range(1, 100_001))
    expect((out == expected, err == expected, code), (True, True, 0), "stdout as sent, stderr as sent, return code")


def typing(container, binary):
    terminal = Terminal(container, binary)
    # What the terminal echoes holds the quotes; what the shell answers does not.
    terminal.type("echo 'on a ''terminal'; tty\n")
    terminal.until("on a terminal")
    terminal.until("/dev/")
    terminal.type("echo 'naïve'' ☃'\n")
    terminal.until("naïve ☃")
    terminal.leave(7)


def interrupt(container):
    terminal = Terminal(container, binary=False)
    # Said by the program that is to be interrupted: between two of its programs the shell itself takes the Ctrl-C.
    terminal.type("""sh -c 'echo be""fore; exec sleep 9999'\n""")
    terminal.until("before")
    terminal.type("\x03")
    terminal.type("echo 'af''ter'\n")
    terminal.until("after")
    terminal.leave(0)


def resizing(container):
    terminal = Terminal(container, binary=False)
    for columns, rows in ((101, 31), (203, 57)):
        terminal.resize(columns, rows)
        # The size travels beside the input: ask until it is there.
        terminal.type(f'until [ "$(stty size)" = "{rows} {columns}" ]; do :; done; echo "is $(stty size)"\n')
        terminal.until(f"is {rows} {columns}")
    terminal.leave(0)


def input_ends(container):
    opened = container.open("sha256sum", stdin=True, binary=True)
    if opened.subprotocol != V5_CHANNEL_PROTOCOL:
        opened.close()
        return f"{opened.subprotocol or 'no subprotocol'} has no end of input"
    data = bytes(range(256)) * 4096
    for start in range(0, len(data), 32768):
        opened.write_stdin(data[start : start + 32768])
    opened.close_channel(0)
    opened.run_forever(timeout=LIMIT)
    expect(opened.read_stdout(), f"{hashlib.sha256(data).hexdigest()}  -\n".encode(), "SHA-256 in the container")
    expect(opened.returncode, 0, "return code")
    return None


def refusal(container, pod):
    """A refused exec is an error with the server's code in it, not an empty success."""
    where = {**container.where, "name": pod}
    try:
        stream(container.api.connect_get_namespaced_pod_exec, **where, command=["true"], stdout=True, _request_timeout=LIMIT)
    except ApiException as refused:
        if not any(code in str(refused.reason) for code in ("403", "404")):
            raise Broken(f"refused, but with {shorten(refused.reason)}") from refused
        return
    raise Broken("an exec in a pod that is not there succeeded")


CHECKS = [
    ("stream() returns the output of a command", one_string),
    ("stdout and stderr are kept apart", apart),
    ("the exit code arrives", exit_code),
    ("a program that does not exist is a failure", missing_program),
    ("text mode carries UTF-8", text_is_utf8),
    ("binary mode carries every byte", binary_is_bytes),
    ("5 MiB of output arrive whole", large),
    ("stdout and stderr arrive whole side by side", large_stderr_beside_stdout),
    ("a terminal takes text frames", lambda c: typing(c, binary=False)),
    ("a terminal takes binary frames", lambda c: typing(c, binary=True)),
    ("Ctrl-C interrupts what runs on the terminal", interrupt),
    ("a terminal is resized", resizing),
    ("the end of input is told (v5)", input_ends),
    ("a refused exec is an error", lambda c: refusal(c, "no-such-pod")),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kubeconfig", "namespace", "pod", "container"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    container = Container(arguments.kubeconfig, arguments.namespace, arguments.pod, arguments.container)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for promise, check in CHECKS:
        began = time.monotonic()
        try:
            skipped = check(container)
        except Exception as failure:  # whatever the library raises is a broken promise
            counts["failed"] += 1
            print(f"FAILED  {promise}: {' '.join(str(failure).split()) or type(failure).__name__}")
            if not isinstance(failure, Broken):
                traceback.print_exc(file=sys.stdout)
            continue
        counts["skipped" if skipped else "passed"] += 1
        print(f"skipped {promise}: {skipped}" if skipped else f"ok      {promise} ({time.monotonic() - began:.2f} s)")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
