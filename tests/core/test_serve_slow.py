"""Clients that dawdle, on a server that waits for moments instead of a minute."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading

import pytest

from codellm.serve import app, server
from codellm.serve.gate import Gate
from codellm.serve.pool import Pool
from support.script_model import ScriptModel


class Hasty(server.Connection):
    head_seconds = send_seconds = 0.2


@pytest.fixture
def story():
    """Runs a client beside a server in this process, and gives what the client gives."""

    def run(client):
        pool, given = Pool({"script": ScriptModel}, 4, lambda line: None), []
        engine = pool.hold("script", ScriptModel("hello" * 2000, context=10**7)).engine

        def work():
            try:
                with socket.socket() as connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                    connection.settimeout(60)
                    connection.connect(listener.getsockname())
                    given.append(client(connection, engine))
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        with server.bind("127.0.0.1", 0) as listener:
            thread = threading.Thread(target=work)
            served = app.App(pool, Gate(), lambda line: None, body_seconds=0.2)
            asyncio.run(server.serve(served, pool, listener, 1, thread.start, Hasty))
            thread.join()
            pool.close()
        assert engine.join(60)
        return given[0]

    return run


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_come_drops_the_connection(story, head):
    def client(connection, engine):
        connection.sendall(head)
        with contextlib.suppress(ConnectionResetError):
            return connection.recv(100)
        return b""

    assert story(client) == b""


def test_a_body_that_does_not_come_is_told_so(story):
    def client(connection, engine):
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        return connection.recv(100)

    assert story(client).startswith(b"HTTP/1.1 408 ")


def test_who_does_not_read_the_answer_loses_the_slot(story):
    def client(connection, engine):
        body = {"prompt": "x", "max_tokens": 10**7, "ignore_eos": True, "stream": True}
        data = json.dumps(body).encode()
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        began = threading.Event()
        while engine.counts() != (1, 0):
            began.wait(0.01)
        while engine.counts() != (0, 0):  # the work itself would take far longer than any test
            began.wait(0.01)
        return True

    assert story(client)
