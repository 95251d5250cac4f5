"""A W&B server on loopback, as far as runs, `wandb sync` and dashboards need one.

It speaks GraphQL, the file stream and uploads of files, says yes, and keeps what it is sent. To an agent of a
sweep it gives the commands that a test has put there.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "x" * 40
ME = {
    "id": "me", "name": "me", "entity": "me", "username": "me", "email": "", "flags": "{}",
    "admin": False, "teams": {"edges": []},
}  # fmt: skip


@dataclass
class ReceivedRun:
    """What the server knows of one run."""

    about: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        return {k: v["value"] for k, v in self.settings.items() if k != "_wandb"}

    @property
    def axes(self) -> dict[str, str]:
        """What W&B draws a name against: `define_metric`, in the codes it is sent in."""
        defined = self.settings["_wandb"]["value"]["m"]
        names = [metric.get("1", metric.get("2")) for metric in defined]
        return {n: names[m["5"] - 1] for n, m in zip(names, defined, strict=True) if "5" in m}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The logged dictionaries in their order, without what W&B adds."""
        return [plain(self.lines[i]) for i in sorted(self.lines)]

    @property
    def summary(self) -> dict[str, Any]:
        return plain(json.loads(self.files["wandb-summary.json"]))


def plain(logged: dict[str, Any]) -> dict[str, Any]:
    """Without times, steps and the names of artifacts, which W&B draws at random."""
    return {
        name: plain(value) if isinstance(value, dict) else value
        for name, value in logged.items()
        if not name.startswith("_") and name != "artifact_path"
    }


class WandbServer:
    """Serves until closed; `runs` by id, and `views` (workspaces and reports) in order.

    Of a sweep it keeps the document, and tells an agent to run with the parameters of each of `to_run`.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ReceivedRun] = {}
        self.views: list[dict[str, Any]] = []
        self.projects: list[str] = []
        self.sweeps: list[str] = []
        self.to_run: list[dict[str, Any]] = []
        handler = type("Handler", (Handler,), {"wandb": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def run(self, name: str) -> ReceivedRun:
        return self.runs.setdefault(name, ReceivedRun())

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer; none for what it does not know, which clients accept."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "Viewer": lambda _: {"viewer": ME},
            "RunResumeStatus": lambda _: {"model": None},
            "UpsertBucket": self._upsert_run,
            "CreateRunFiles": self._create_files,
            "ArtifactType": lambda _: {"project": {"artifact": None}},
            "CreateArtifact": self._create_artifact,
            "GetProjects": self._list_projects,
            "CreateProject": self._create_project,
            "upsertView": self._upsert_view,
            "UpsertView2": self._upsert_view,
            "UpsertSweep": self._upsert_sweep,
            "SweepWithRuns": self._sweep,
            "CreateAgent": lambda _: {"createAgent": {"agent": {"id": "agent"}}},
            "Heartbeat": self._command,
        }
        known = answers.get(found[1]) if found else None
        return known(variables) if known else {}

    def _upsert_run(self, sent: dict[str, Any]) -> dict[str, Any]:
        run = self.run(sent["name"])
        run.about |= {
            k: sent[k] for k in ("groupName", "displayName", "jobType", "tags") if sent[k]
        }
        run.settings |= json.loads(sent["config"] or "{}")
        project = {"id": "p", "name": sent["project"], "entity": {"id": "me", "name": "me"}}
        bucket = {"id": "r", "name": sent["name"], "config": "{}", "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _create_files(self, sent: dict[str, Any]) -> dict[str, Any]:
        folder = f"{self.url}/upload/{sent['run']}"
        files = [{"name": name, "uploadUrl": f"{folder}/{name}"} for name in sent["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _create_artifact(self, sent: dict[str, Any]) -> dict[str, Any]:
        """Of a table, whose content is a file of the run as well, or of a state or code."""
        sent = sent.get("input", sent)
        self.run(sent["runName"]).artifacts.append(sent)
        latest = {"id": "a", "versionIndex": 0}
        artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": latest}}
        return {"createArtifact": {"artifact": artifact}}

    def _list_projects(self, _: dict[str, Any]) -> dict[str, Any]:
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"pageInfo": page, "edges": []}}

    def _create_project(self, sent: dict[str, Any]) -> dict[str, Any]:
        self.projects.append("{entityName}/{name}".format(**sent["input"]))
        return {}

    def _upsert_view(self, sent: dict[str, Any]) -> dict[str, Any]:
        self.views.append(sent)
        project = {"id": "p", "name": sent["projectName"], "entityName": sent["entityName"]}
        kept = {k: sent[k] for k in ("name", "type", "displayName", "description", "spec")}
        view = {**kept, "id": f"v{len(self.views)}", "project": project}
        return {"upsertView": {"view": view, "inserted": True}}

    def _upsert_sweep(self, sent: dict[str, Any]) -> dict[str, Any]:
        self.sweeps.append(sent["config"])
        project = {"id": "p", "name": sent["projectName"], "entity": {"id": "me", "name": "me"}}
        sweep = {"name": "first", "project": project}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _sweep(self, _: dict[str, Any]) -> dict[str, Any]:
        sweep = {"id": "s", "name": "first", "state": "RUNNING", "config": self.sweeps[-1]}
        return {"project": {"sweep": {**sweep, "runs": {"edges": []}}}}

    def _command(self, sent: dict[str, Any]) -> dict[str, Any]:
        """One run at a time, and the end when none is left."""
        commands: list[dict[str, Any]] = []
        if not json.loads(sent["runState"]):
            parameters = self.to_run.pop(0) if self.to_run else None
            commands = [{"type": "exit"}]
            if parameters is not None:
                arguments = {name: {"value": value} for name, value in parameters.items()}
                run_id = f"of-agent-{len(self.to_run)}"
                commands = [{"type": "run", "run_id": run_id, "program": "clp", "args": arguments}]
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}


class Handler(BaseHTTPRequestHandler):
    """Takes requests apart."""

    wandb: WandbServer
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionResetError):  # clients go without a word
            super().handle()

    def do_GET(self) -> None:
        self._say({})

    def do_PUT(self) -> None:
        _, run, name = self.path.removeprefix("/").split("/", 2)
        self.wandb.run(run).files[name] = self._body()
        self._say({})

    def do_POST(self) -> None:
        body, *rest, last = self._body(), *self.path.split("/")
        if last == "graphql":
            asked = json.loads(body)
            self._say({"data": self.wandb.answer(asked["query"], asked.get("variables") or {})})
        elif last == "file_stream":
            history = json.loads(body).get("files", {}).get("wandb-history.jsonl", {})
            lines = enumerate(history.get("content", []), history.get("offset", 0))
            self.wandb.run(rest[-1]).lines.update((i, json.loads(line)) for i, line in lines)
            self._say({"exitcode": None, "limits": {}})
        else:
            self._say({})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _chunk(self) -> bytes:
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def _say(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None: ...
