"""Fake vLLM servers with configurable faults."""

import json
import math
import socket
import struct
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fireopd.engines.vllm.worker import WORKER_EXTENSION, read_snapshot, snapshot_files

SETTINGS = {
    "model_config": {"logprobs_mode": "processed_logprobs"},
    "parallel_config": {"worker_extension_cls": WORKER_EXTENSION},
    "weight_transfer_config": None,
}


class FakeServer:
    """Answers each prompt with its first token, two 7s and the stop token 1; `requests` records all requests."""

    def __init__(self, fault=None, after=0, settings=SETTINGS, port=0):
        self.fault, self.after, self.settings = fault, after, settings
        self.version, self.loaded, self.requests, self.connections = "default", {}, [], []
        self.answers = {}  # in the place of the right ones, by path
        handler = type("Handler", (Handler,), {"fake": self})
        self.stopping = threading.Event()
        self.http = Listener(("127.0.0.1", port), handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.stopping.set()
        self.http.shutdown()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.http.server_close()

    @property
    def asked(self):
        return [body["token_ids"] for path, body in self.requests if path == "/inference/v1/generate"]

    def generate(self, body):
        tokens = [body["token_ids"][0], 7, 7, 1]
        logprobs = [{"token_id": t, "logprob": -0.5} for t in tokens]
        choice = {"token_ids": tokens, "finish_reason": "stop", "logprobs": {"content": logprobs}}
        choice["weight_versions"] = [{"version": self.version, "start": 0, "end": len(tokens)}]
        asked = body["token_ids"]
        prompt_logprobs = [None, *({str(t): {"logprob": -float(t)}} for t in asked[1:])]
        answer = {"choices": [choice], "prompt_logprobs": prompt_logprobs}
        return self.spoil(answer) if self.fault and len(self.asked) > self.after else answer

    def spoil(self, answer):
        choice = answer["choices"][0]
        match self.fault:
            case "die":
                raise ConnectionAbortedError
            case "hang":
                self.stopping.wait(60)
            case fault if fault.isdigit():
                return int(fault)
            case "no json":
                return "oops"
            case "nan":
                choice["logprobs"]["content"][0]["logprob"] = float("nan")
            case "restarted":
                choice["weight_versions"][0]["version"] = "default"
        return answer


class FakeTeacherServer(FakeServer):
    """Scores the token t with the log-probability -t / 64 and the entropy t / 64."""

    def __init__(self, card, fault=None, after=0, port=0):
        super().__init__(fault, after, port=port)
        self.answers["/fireopd/teacher"] = card | {"context": 256}
        self.scoring = threading.Event()  # set by a test that lets the requests wait
        self.scoring.set()

    @property
    def asked(self):
        return [body["token_ids"] for path, body in self.requests if path == "/fireopd/score"]

    def score(self, body):
        self.scoring.wait(60)
        values = [(-token / 64, token / 64) for token in body["token_ids"][body["first"] :]]
        match self.fault if len(self.asked) > self.after else None:
            case "die":
                raise ConnectionAbortedError
            case "hang":
                self.stopping.wait(60)
            case "few":
                values.pop()
            case "none":
                values = []
            case "nan":
                values[-1] = (math.nan, 0.5)
            case "positive":
                values[-1] = (0.25, 0.5)
            case "entropy":
                values[0] = (-0.5, 9.0)
            case "negative entropy":
                values[0] = (-0.5, -0.5)
            case str() as status:
                return int(status)
        return b"".join(struct.pack("<2f", *pair) for pair in values)


class Listener(ThreadingHTTPServer):
    """Server that joins its threads, and is silent about clients that disconnect."""

    daemon_threads = False
    request_queue_size = 128
    """Connections that wait to be accepted: more than an engine opens at once, or some are reset under load."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Request handler of a fake server."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.fake.connections.append(self.connection)

    def do_GET(self):
        answers = {
            "/health": {},
            "/server_info": {"vllm_config": self.fake.settings},
            "/get_world_size": {"world_size": 2},
        }
        answers["/weight_info"] = {"weight_version": self.fake.version}
        path = self.path.partition("?")[0]
        self.answer((answers | self.fake.answers).get(path, 404))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "null")
        self.fake.requests.append((self.path, body))
        match self.path:
            case path if path in self.fake.answers:
                self.answer(self.fake.answers[path])
            case "/inference/v1/generate" | "/fireopd/score":
                try:
                    self.answer(self.fake.generate(body) if "generate" in self.path else self.fake.score(body))
                except ConnectionAbortedError:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
            case "/collective_rpc":
                self.fake.loaded = dict(read_snapshot(snapshot_files(Path(body["kwargs"]["folder"]))))
                self.answer({"results": [None]})
            case "/reset_prefix_cache":
                self.answer({"success": True})
            case "/update_weight_version":
                self.fake.version = body["new_version"]
                self.answer({"success": True})
            case _:
                self.answer({})

    def answer(self, body):
        status = body if isinstance(body, int) else 200
        body = {"error": {"message": "no"}} if status != 200 else body
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        content = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass
