"""A loopback server that speaks as much of Weights & Biases' API as its client needs for sweeps, runs and artifacts.

It holds what real clients send: `wandb sweep`, `wandb agent`, and runs with their history, files and artifacts. Grid
sweeps go through the product of their values; `stop_when(run)` says which running runs an agent is told to stop.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY, PROJECT, KEY = "someone", "spatial-zoo", 40 * "a"


@dataclass
class Run:
    name: str
    agent: str | None = None
    state: str = "running"
    exit_code: int | None = None
    starts: int = 0  # how often a client has announced it
    stop_sent: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def values(self, name: str) -> list[float]:
        return [row[name] for row in self.history if name in row]


@dataclass
class Sweep:
    name: str
    config: dict[str, Any]
    waiting: list[dict[str, Any]]
    state: str = "RUNNING"


class StandIn:
    """The server's state, and its answers to GraphQL operations by their names."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, str] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.stop_when = lambda run: False
        self.unknown: list[str] = []
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_SILENT": "true", "WANDB_MODE": "online"}

    def answer(self, operation: str, query: str, variables: dict[str, Any]) -> Any:
        with self._lock:
            if hasattr(self, f"_on_{operation}"):
                return getattr(self, f"_on_{operation}")(variables)
            self.unknown.append(operation)
            return None

    def _on_Viewer(self, variables):
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        flags = json.dumps({"code_saving_enabled": False})
        viewer = {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": flags, "teams": teams}
        return {"viewer": viewer}

    def _on_UpsertSweep(self, variables):
        config = yaml.safe_load(variables["config"])
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = Sweep(name, config, grid(config["parameters"]))
        sweep = {"id": name, "name": name, "project": project()}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _on_SweepWithRuns(self, variables):
        sweep = self.sweeps[variables["sweep"]]
        found = {"id": sweep.name, "name": sweep.name, "method": sweep.config["method"], "state": sweep.state}
        return {"project": {"sweep": {**found, "config": yaml.safe_dump(sweep.config), "runs": {"edges": []}}}}

    def _on_CreateAgent(self, variables):
        agent = f"agent{len(self.agents)}"
        self.agents[agent] = variables["sweep"]
        return {"createAgent": {"agent": {"id": agent}}}

    def _on_Heartbeat(self, variables):
        agent = variables["id"]
        running = json.loads(variables["runState"])
        commands = self._stops(running) or self._work(agent, running)
        return {"agentHeartbeat": {"agent": {"id": agent}, "commands": json.dumps(commands)}}

    def _stops(self, running):
        stopped = [run for run in map(self.runs.__getitem__, running) if run.stop_sent or self.stop_when(run)]
        for run in stopped:
            run.stop_sent = True
        return [{"type": "stop", "run_id": run.name} for run in stopped]

    def _work(self, agent, running):
        sweep = self.sweeps[self.agents[agent]]
        if running:
            return []
        if not sweep.waiting:
            return [{"type": "exit"}]
        values = sweep.waiting.pop(0)
        run = Run(f"run{len(self.runs)}of{sweep.name}", agent)
        self.runs[run.name] = run
        arguments = {key: {"value": value} for key, value in values.items()}
        return [{"type": "run", "run_id": run.name, "program": sweep.config["program"], "args": arguments}]

    def _on_UpsertBucket(self, variables):
        name = variables.get("name") or variables.get("id")
        run = self.runs.setdefault(name, Run(name))
        inserted = not run.starts
        if variables.get("config"):
            run.config = {key: item.get("value") for key, item in json.loads(variables["config"]).items()}
        run.starts += 1
        bucket = {
            "id": name, "name": name, "displayName": name, "description": "", "sweepName": variables.get("sweep"),
            "project": project(), "historyLineCount": len(run.history),
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _on_RunResumeStatus(self, variables):
        run = self.runs.get(variables["name"])
        if run is None or not run.starts:
            return {"model": {"id": PROJECT, "name": PROJECT, "entity": project()["entity"], "bucket": None}}
        config = json.dumps({key: {"value": value} for key, value in run.config.items()})
        tail = json.dumps([json.dumps(row) for row in run.history[-1:]])
        bucket = {
            "name": run.name, "historyLineCount": len(run.history), "eventsLineCount": 0, "logLineCount": 0,
            "historyTail": tail, "eventsTail": "[]", "summaryMetrics": json.dumps(run.summary), "config": config,
            "displayName": run.name, "id": run.name, "wandbConfig": json.dumps({"t": 1}), "tags": [],
        }  # fmt: skip
        return {"model": {"id": PROJECT, "name": PROJECT, "entity": project()["entity"], "bucket": bucket}}

    def _on_CreateRunFiles(self, variables):
        files = [
            {"name": name, "uploadUrl": f"{self.url}/upload/{variables['run']}/{name}"} for name in variables["files"]
        ]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _on_CreateArtifact(self, variables):
        given = variables["input"]
        artifact = {"id": f"artifact{len(self.artifacts)}", "name": given["artifactCollectionName"], **given}
        self.artifacts.append({**artifact, "files": {}, "committed": False})
        told = {"id": artifact["id"], "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": told}}

    def _on_CreateArtifactManifest(self, variables):
        name = variables["name"]
        where = f"{self.url}/artifact/{variables['artifactID']}/{name}"
        file = {"id": "file", "name": name, "displayName": name, "uploadUrl": where, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": variables["artifactID"], "file": file}}}

    def _on_CreateArtifactFiles(self, variables):
        given = variables["input"]["artifactFiles"] if "input" in variables else variables["artifactFiles"]
        edges = [
            {
                "node": {
                    "id": item["name"], "name": item["name"], "displayName": item["name"], "storagePath": item["name"],
                    "uploadUrl": f"{self.url}/artifact/{item['artifactID']}/{item['name']}", "uploadHeaders": [],
                    "uploadMultipartUrls": None, "artifact": {"id": item["artifactID"]},
                }
            }
            for item in given
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _on_CommitArtifact(self, variables):
        artifact = self._artifact(variables["artifactID"])
        artifact["committed"] = True
        return {"commitArtifact": {"artifact": {"id": artifact["id"], "digest": artifact.get("digest", "")}}}

    def _on_UpdateArtifactManifest(self, variables):
        return {"updateArtifactManifest": {"artifactManifest": {"id": variables["artifactManifestID"], "file": None}}}

    def _artifact(self, name):
        return next(artifact for artifact in self.artifacts if artifact["id"] == name)

    def take_file(self, path: str, content: bytes) -> None:
        kind, owner, name = path.lstrip("/").split("/", 2)
        with self._lock:
            holder = self.runs[owner].files if kind == "upload" else self._artifact(owner)["files"]
            holder[name] = content

    def take_stream(self, name: str, sent: dict[str, Any]) -> None:
        """Takes what a run streams: rows of its history, its summary, and how it ended."""
        with self._lock:
            run = self.runs[name]
            files = sent.get("files") or {}
            run.history += [json.loads(line) for line in files.get("wandb-history.jsonl", {}).get("content", ())]
            for line in files.get("wandb-summary.json", {}).get("content", ()):
                run.summary = json.loads(line)
            if sent.get("complete"):
                run.exit_code = sent.get("exitcode")
                run.state = "finished" if run.exit_code == 0 else "failed"


def grid(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns every combination of the values; of what is drawn from a range, its ends."""
    values = {key: values_of(given) for key, given in parameters.items()}
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def values_of(given: dict[str, Any]) -> list[Any]:
    if "value" in given:
        return [given["value"]]
    return given["values"] if "values" in given else [given["min"], given["max"]]


def project() -> dict[str, Any]:
    return {"id": PROJECT, "name": PROJECT, "entity": {"id": ENTITY, "name": ENTITY}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that end drop their connections."""


def _handler(state: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self._content()
            stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
            if stream:
                state.take_stream(stream[1], json.loads(content))
                self._answer({"exitcode": None, "limits": {}})
            elif self.path == "/graphql":
                asked = json.loads(content)
                operation = asked.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]
                data = state.answer(operation, asked["query"], asked.get("variables") or {})
                self._answer({"data": data} if data is not None else {"errors": [{"message": f"unknown: {operation}"}]})
            else:
                self._answer({})

        def do_PUT(self) -> None:
            state.take_file(self.path, self._content())
            self._answer({})

        def _content(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                content = b"".join(iter(self._chunk, b""))
            else:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

        def _chunk(self) -> bytes:
            chunk = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            return chunk

        def _answer(self, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
