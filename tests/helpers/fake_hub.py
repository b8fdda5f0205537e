"""Stand-in of the Hugging Face Hub: repositories of models in memory, with the requests that an upload makes.

It takes all files in the commit itself, so that Xet, the transfer of large files, is not needed.
"""

import base64
import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_right"


def blob(content):
    """Return Git's hash of a file, or None."""
    return None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class FakeHub:
    """Hub that accepts one token."""

    def __init__(self):
        self.repositories, self.private, self.files_sent = {}, {}, Counter()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        """Stop the server."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, path, body):
        """Return status and JSON of a request."""
        if path == "/api/whoami-v2":
            return 200, {"name": "user", "type": "user", "auth": {"accessToken": {"role": "write"}}}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        name = "/".join(path.removeprefix("/api/models/").lstrip("/").split("/")[:2])
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        if path.endswith("/preupload/main"):
            known = self.repositories[name]
            files = [{"path": file["path"]} for file in json.loads(body)["files"]]
            rest = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [file | rest | {"oid": blob(known.get(file["path"]))} for file in files]}
        if path.endswith("/commit/main"):
            return self._commit(name, [json.loads(line) for line in body.splitlines()])
        return 200, {"id": name, "siblings": [], "sha": "0" * 40}

    def _create(self, wanted):
        name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        if name.startswith("stranger/"):
            return 403, {"error": "no rights to create a model under the namespace stranger"}
        status = 409 if name in self.repositories else 200
        self.repositories.setdefault(name, {})
        self.private.setdefault(name, wanted.get("private", False) or wanted.get("visibility") == "private")
        return status, {"url": f"{self.address}/{name}", "error": "exists"}

    def _commit(self, name, lines):
        files = self.repositories[name]
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                self.files_sent[name] += 1
        return 200, {"commitUrl": f"{self.address}/{name}/commit/1", "commitOid": "1" * 40, "pullRequestUrl": None}

    def _handler(hub):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.partition("?")[0]
                own = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                status, found = hub.answer(path, body) if own else (401, {"error": "wrong token"})
                text = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                if "error" in found and status >= 400:
                    self.send_header("X-Error-Message", found["error"])
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = reply  # noqa: N815

            def log_message(self, *_):
                """Print nothing."""

        return Handler
