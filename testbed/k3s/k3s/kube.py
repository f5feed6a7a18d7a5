"""A client of the Kubernetes API, as small as this program's needs."""

from __future__ import annotations

import http.client
import json
import pathlib
import ssl
from typing import Any


class ApiError(Exception):
    """An answer that is not a success; ``code`` is the HTTP status, 0 for no answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """One connection; not to be shared between threads."""

    def __init__(
        self,
        host: str,
        port: int,
        authority: pathlib.Path,
        client: pathlib.Path | None = None,
        token: str = "",
        timeout: float = 15.0,
    ) -> None:
        """``client`` is the path of a certificate without its suffix (.crt and .key beside each other)."""
        self._address = (host, port)
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._context = ssl.create_default_context(cafile=str(authority))
        if client:
            self._context.load_cert_chain(client.with_suffix(".crt"), client.with_suffix(".key"))
        self._connection: http.client.HTTPSConnection | None = None

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Send and give the parsed answer. Raises ApiError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": kind, "Accept": "application/json"}
        for attempt in (1, 2):
            fresh = self._connection is None
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(
                    *self._address, timeout=self._timeout, context=self._context
                )
            try:
                self._connection.request(method, path, data, headers)
                answer = self._connection.getresponse()
                content = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                self._connection = None
                # A connection that the server closed while it was idle says nothing about the server.
                if fresh or attempt == 2:
                    raise ApiError(0, f"{method} {path}: {error}") from error
        if answer.status >= 400:
            try:
                message = str(json.loads(content).get("message", ""))
            except (ValueError, AttributeError):
                message = content[:200].decode(errors="replace")
            raise ApiError(answer.status, f"{method} {path}: {answer.status} {message}")
        try:
            return json.loads(content)
        except ValueError:
            return content.decode(errors="replace")

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def find(self, path: str) -> Any:
        """As get(), None where there is nothing."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def items(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(path)["items"]
        return found

    def merge(self, path: str, patch: Any) -> Any:
        return self.call("PATCH", path, patch, "application/merge-patch+json")

    def apply(self, path: str, body: Any, manager: str) -> Any:
        return self.call("PATCH", f"{path}?fieldManager={manager}&force=true", body, "application/apply-patch+yaml")


def kubeconfig(server: str, authority: pathlib.Path, client: pathlib.Path, embed: bool = False) -> str:
    """A kubeconfig as JSON (which is YAML); ``embed`` puts the certificates into it, as k3s.yaml has them."""
    import base64

    def part(field: str, path: pathlib.Path) -> dict[str, str]:
        if embed:
            return {f"{field}-data": base64.b64encode(path.read_bytes()).decode()}
        return {field: str(path)}

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": {**part("certificate-authority", authority), "server": server}}],
        "users": [
            {
                "name": "default",
                "user": {
                    **part("client-certificate", client.with_suffix(".crt")),
                    **part("client-key", client.with_suffix(".key")),
                },
            }
        ],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        "current-context": "default",
        "preferences": {},
    }
    if embed:
        import yaml

        return yaml.safe_dump(document, sort_keys=True)
    return json.dumps(document)
