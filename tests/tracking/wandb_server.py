"""A loopback W&B: what the real client asks of the GraphQL and file-stream services, with faults to order.

On 127.0.0.1 alone, for `LIFE` seconds at most. It keeps what it was sent, and hands out what the client asks back.
"""

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "desk-team"
LIFE = 300.0
"""Seconds after which a server that nobody closed is gone."""
HANG = 60.0
"""Longest that a request hangs."""
_DAY = "2024-01-01T00:00:00Z"
_REQUIRED = re.compile(r"\$(\w+): *[\w\[\]!]*!(?=[,)\s])(?! *=)")

Answer = dict[str, Any]


@dataclass
class Run:
    """What the server knows of one run."""

    name: str
    project: str
    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        return [self.lines[at] for at in sorted(self.lines)]

    @property
    def id(self) -> str:
        return f"run-{self.name}"


@dataclass
class Artifact:
    """One version of an artifact; `used_by` are the runs that named it as an input."""

    id: str
    project: str
    kind: str
    name: str
    run: str
    version: int
    aliases: list[str]
    metadata: dict[str, Any]
    digest: str
    committed: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    used_by: list[str] = field(default_factory=list)


class LoopbackWandb:
    """`fault` is "" or what every request meets: "500" an error, "hang" silence. `/fail` begins
    `fail_when_told`, once a run is under way.

    Attributes
    ----------
    runs, artifacts, alerts, views : what it was told.
    asked : names of the GraphQL operations, and paths of the other requests.
    keys : what clients signed in with.
    unknown : operations that it has no answer to.
    """

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.fail_when_told = ""
        self.runs: dict[str, Run] = {}
        self.artifacts: list[Artifact] = []
        self.alerts: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.keys: set[str] = set()
        self.unknown: list[str] = []
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self._end = threading.Timer(LIFE, self.close)
        self._end.daemon = True
        self._end.start()

    def close(self) -> None:
        self._end.cancel()
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        if threading.current_thread() is not self._end:
            self._thread.join(5)

    def run(self, stage: str) -> Run:
        """The one run of `stage`."""
        (found,) = [run for run in self.runs.values() if run.facts["jobType"] == stage]
        return found

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        if path == "/graphql":
            asked = json.loads(body)
            operation = _operation(asked["query"])
            self.asked.append(operation)
            return self._graphql(operation, asked.get("variables") or {}, asked["query"])
        if path == "/fail":
            begun = "ArtifactMembershipByName" in self.asked  # the last thing that is waited for
            self.fault = self.fail_when_told if begun else ""
            return {"failing": begun}
        self.asked.append(path)
        if match := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path):
            self._stream(self.runs[match[3]], json.loads(body))
            return {}
        if method == "PUT" and (match := re.fullmatch(r"/storage/([^/]+)/(.+)", path)):
            kept = self.runs[match[1]].files if match[1] in self.runs else self._artifact(match[1]).files
            kept[match[2]] = body
            return {}
        if path != "/sdk/otel/v1/metrics":  # how often the client's own functions are called
            self.unknown.append(f"{method} {path}")
        return {}

    def _graphql(self, operation: str, given: dict[str, Any], query: str) -> Answer:
        made = getattr(self, f"_on_{operation}", None)
        if made is None:
            self.unknown.append(operation)
            return {"errors": [{"message": f"no answer to {operation}: {query}"}], "data": None}
        missing = [name for name in _REQUIRED.findall(query) if given.get(name) is None]
        if missing:
            return {"errors": [{"message": f"{operation}: {missing[0]} is required"}], "data": None}
        with self._lock:
            return {"data": made(given)}

    def _on_UpsertBucket(self, given: dict[str, Any]) -> Answer:
        new = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], Run(given["name"], given["project"]))
        run.facts |= {key: value for key, value in given.items() if value is not None and key != "config"}
        run.config |= json.loads(given["config"] or "{}")
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": new}}

    def _on_RunResumeStatus(self, given: dict[str, Any]) -> Answer:
        run = self.runs.get(given["name"])
        place = {"id": "project", "name": given["project"], "entity": {"id": "entity", "name": ENTITY}}
        if run is None:
            return {"model": {**place, "bucket": None}}
        tail = json.dumps([json.dumps(line) for line in run.history[-1:]])
        told = {
            "summaryMetrics": json.dumps(run.summary), "logLineCount": 0, "historyLineCount": len(run.lines),
            "eventsLineCount": 0, "historyTail": tail, "eventsTail": "[]", "config": json.dumps(run.config),
            "tags": run.facts.get("tags", []), "notes": None, "wandbConfig": "{}",
        }  # fmt: skip
        return {"model": {**place, "bucket": {**self._bucket(run), **told}}}

    def _bucket(self, run: Run) -> Answer:
        project = {"id": "project", "name": run.project, "entity": {"id": "entity", "name": ENTITY}}
        return {
            "id": run.id, "name": run.name, "displayName": run.facts.get("displayName"), "description": None,
            "config": json.dumps(run.config), "sweepName": None, "project": project,
            "historyLineCount": len(run.lines),
        }  # fmt: skip

    def _on_CreateRunFiles(self, given: dict[str, Any]) -> Answer:
        files = [{"name": name, "uploadUrl": f"{self.base}/storage/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": self.runs[given["run"]].id, "uploadHeaders": [], "files": files}}

    def _on_NotifyScriptableRunAlert(self, given: dict[str, Any]) -> Answer:
        self.alerts.append(given)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _on_CreateArtifact(self, given: dict[str, Any]) -> Answer:
        told = given["input"]
        name = told.get("artifactCollectionName") or told["artifactCollectionNames"][0]
        older = [artifact for artifact in self.artifacts if artifact.name == name]
        aliases = [alias["alias"] for alias in told.get("aliases") or []]
        for artifact in older:  # an alias is of one version
            artifact.aliases = [alias for alias in artifact.aliases if alias not in aliases]
        made = Artifact(
            f"artifact-{len(self.artifacts)}", told["projectName"], told["artifactTypeName"], name, told["runName"],
            len(older), aliases, json.loads(told.get("metadata") or "{}"), told["digest"],
        )  # fmt: skip
        self.artifacts.append(made)
        latest = {"id": older[-1].id, "versionIndex": older[-1].version} if older else None
        sequence = {"id": f"sequence-{name}", "latestArtifact": latest}
        return {"createArtifact": {"artifact": {"id": made.id, "state": "PENDING", "artifactSequence": sequence}}}

    def _on_CreateArtifactManifest(self, given: dict[str, Any]) -> Answer:
        url = f"{self.base}/storage/{given['artifactID']}/{given['name']}"
        file = {"id": "manifest", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{given['artifactID']}", "file": file}}}

    def _on_UpdateArtifactManifest(self, given: dict[str, Any]) -> Answer:
        artifact = given["artifactManifestID"].removeprefix("manifest-")
        file = {"id": "manifest", "uploadUrl": f"{self.base}/storage/{artifact}/manifest.json", "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": given["artifactManifestID"], "file": file}}}

    def _on_CreateArtifactFiles(self, given: dict[str, Any]) -> Answer:
        nodes = [
            {"storagePath": f"{file['artifactID']}/{file['name']}", "uploadHeaders": [], "uploadMultipartUrls": None,
             "uploadUrl": f"{self.base}/storage/{file['artifactID']}/{file['name']}",
             "artifact": {"id": file["artifactID"]}}
            for file in given["input"]["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _on_CommitArtifact(self, given: dict[str, Any]) -> Answer:
        artifact = self._artifact(given["artifactID"])
        artifact.committed = True
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def _on_UseArtifact(self, given: dict[str, Any]) -> Answer:
        told = given.get("input", given)
        artifact = self._artifact(told["artifactID"])
        artifact.used_by.append(told["runName"])
        facts = {"id": artifact.id, "digest": artifact.digest, "description": None, "state": "COMMITTED"}
        return {"useArtifact": {"artifact": {**facts, "createdAt": _DAY, "metadata": json.dumps(artifact.metadata)}}}

    def _on_ArtifactMembershipByName(self, given: dict[str, Any]) -> Answer:
        name, _, alias = given["name"].partition(":")
        found = [a for a in self.artifacts if a.name == name and alias in (*a.aliases, f"v{a.version}") and a.committed]
        return {"project": {"artifactCollectionMembership": _membership(found[0]) if found else None}}

    def _on_UpsertView2(self, given: dict[str, Any]) -> Answer:
        known = [view for view in self.views if view["id"] == given.get("id")]
        view = known[0] if known else {"id": f"view-{len(self.views)}"}
        view |= {key: given[key] for key in ("entityName", "projectName", "name", "displayName", "type")}
        view["spec"] = json.loads(given["spec"])
        if not known:
            self.views.append(view)
        return {"upsertView": {"view": {"id": view["id"], "name": view["name"]}, "inserted": not known}}

    def _on_View(self, given: dict[str, Any]) -> Answer:
        found = [view for view in self.views if view["name"] == given["viewName"]]
        nodes = [{"node": {**view, "spec": json.dumps(view["spec"])}} for view in found]
        return {"project": {"allViews": {"edges": nodes}}}

    def _on_Viewer(self, given: dict[str, Any]) -> Answer:
        who = {"id": "user", "entity": ENTITY, "username": "trader", "email": "trader@example.com", "flags": "{}"}
        return {"viewer": {**who, "name": "Trader", "admin": False, "teams": {"edges": [{"node": {"name": ENTITY}}]}}}

    def _on_GetDefaultEntity(self, given: dict[str, Any]) -> Answer:
        return {"viewer": {"id": "user", "entity": ENTITY}}

    def _on_ServerFeaturesQuery(self, given: dict[str, Any]) -> Answer:
        return {"serverInfo": {"features": []}}

    def _on_OrganizationCoreWeaveOrganizationID(self, given: dict[str, Any]) -> Answer:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def _on_XXHashDigestsEnabled(self, given: dict[str, Any]) -> Answer:
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _on_ArtifactType(self, given: dict[str, Any]) -> Answer:
        return {"project": {"artifact": None}}

    def _on_FetchArtifactDigestAlgorithm(self, given: dict[str, Any]) -> Answer:
        return {"project": None}

    def _artifact(self, wanted: str) -> Artifact:
        (found,) = [artifact for artifact in self.artifacts if artifact.id == wanted]
        return found

    def _stream(self, run: Run, told: dict[str, Any]) -> None:
        files = told.get("files") or {}
        if "wandb-history.jsonl" in files:
            chunk = files["wandb-history.jsonl"]
            for at, line in enumerate(chunk["content"], chunk["offset"]):
                run.lines[at] = json.loads(line)
        if "wandb-summary.json" in files:
            run.summary = json.loads(files["wandb-summary.json"]["content"][-1])
        if told.get("complete"):
            run.exit_code = told.get("exitcode")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                loopback.keys.add(self.headers.get("Authorization", ""))
                if loopback.fault == "hang":
                    loopback._released.wait(HANG)
                failing = bool(loopback.fault)
                told = {} if failing else loopback.answer(self.command, self.path, body)
                text = json.dumps(told).encode()
                self.send_response(500 if failing else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away."""


def _operation(query: str) -> str:
    match = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
    return match[1] if match else "?"


def _membership(artifact: Artifact) -> Answer:
    project = {"id": "project", "internalId": "1", "name": artifact.project, "entity": {"name": ENTITY}}
    collection = {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}
    aliases = [{"__typename": "ArtifactAlias", "id": alias, "alias": alias} for alias in artifact.aliases]
    told = {
        "__typename": "Artifact", "id": artifact.id, "artifactSequence": collection, "versionIndex": artifact.version,
        "artifactType": {"name": artifact.kind}, "description": None, "metadata": json.dumps(artifact.metadata),
        "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [], "historyStep": None, "state": "COMMITTED",
        "size": 1, "digest": artifact.digest, "commitHash": None, "fileCount": 1, "createdAt": _DAY, "updatedAt": None,
        "aliases": [{**alias, "artifactCollection": collection} for alias in aliases],
    }  # fmt: skip
    return {
        "__typename": "ArtifactCollectionMembership", "id": "membership", "versionIndex": artifact.version,
        "createdAt": _DAY, "aliases": aliases, "artifactCollection": collection, "artifact": told,
    }  # fmt: skip
