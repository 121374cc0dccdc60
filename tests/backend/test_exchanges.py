"""Exchanges with clients that leave, fall silent or stay, through the real server."""

import asyncio
import json

import httpx2
import pytest
from fixtures_app import callers_known
from fixtures_loop import in_a_loop
from fixtures_writer import ROOT, entered, furnish, line
from patience import PATIENCE_SECONDS, free_port, until_open, until_there

from allotment.backend import serving as stopping
from allotment.backend.app import create_app
from allotment.backend.engine import Engine
from allotment.backend.serving import serving
from allotment.backend.web import exchanges
from allotment.backend.web.problem_details import HttpProblem

BEGUN = json.dumps({"source": "s", "id": "1", "line": line(0)}).encode()


async def sent(port, path, token, length, close=True):
    """The answer to a request of which only the beginning comes; nothing where the line is cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = ("POST " + path + " HTTP/1.1", "Host: a", f"Authorization: Bearer {token}")
    writer.write("\r\n".join([*head, f"Content-Length: {length}", "", ""]).encode() + BEGUN)
    await writer.drain()
    if close:
        writer.write_eof()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            told = await reader.readuntil(b"\r\n\r\n")
            return told + await reader.readexactly(int(told.lower().split(b"content-length: ")[1].split()[0]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    finally:
        writer.close()


@in_a_loop
async def test_who_leaves_in_a_body_or_falls_silent_is_told_so_unlogged(isolation, monkeypatch, capsys):
    store, known, port = entered(isolation), callers_known(), free_port()
    async with Engine(isolation, ROOT, following=False) as engine:
        await furnish(await engine.writer(store.tenant))
        app = create_app(engine, **known)
        token = known["issuer"].mint("m-1", store.tenant, ["mediation"], ())
        async with serving(app, "127.0.0.1", port):
            await until_open(port)
            for path in ("/v1/usage", "/v1/charging/chargingdata", "/graphql", "/oauth/token"):
                answer = await sent(port, path, token, 5_000)
                assert not answer or (b" 400 " in answer and b"body_cut_off" in answer), path
            monkeypatch.setattr(exchanges, "SILENT_SECONDS_MAX", 0.2)
            for path in ("/v1/usage", "/graphql"):
                assert b"too_slow" in await sent(port, path, token, 5_000, close=False)
    said = "".join(capsys.readouterr())
    assert "request failed" not in said
    assert line(0) not in said


async def app(scope, receive, send):
    """Answers after a moment, never, or without end."""
    if scope["type"] != "http":
        return
    UNDER_WAY.append(scope["path"])
    head = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/endless":
        await send(head)
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await asyncio.sleep(0.8 if scope["path"] == "/slow" else 3_600)
    await send(head)
    await send({"type": "http.response.body", "body": b"done", "more_body": False})


UNDER_WAY: list[str] = []


@in_a_loop
async def test_when_it_stops_what_is_worked_on_may_finish_and_the_rest_is_told_to_come_again(monkeypatch):
    monkeypatch.setattr(stopping, "STOP_SECONDS_POLITE", 0.1)
    monkeypatch.setattr(stopping, "STOP_SECONDS_MAX", 2.0)
    UNDER_WAY.clear()
    port = free_port()
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client:
        async with serving(app, "127.0.0.1", port):
            await until_open(port)
            asked = {path: asyncio.create_task(client.get(path)) for path in ("/slow", "/never", "/endless")}
            await until_there(lambda: len(UNDER_WAY) == len(asked))
        slow, never = await asked["/slow"], await asked["/never"]
        assert (slow.status_code, slow.text) == (200, "done")
        assert (never.status_code, never.headers["retry-after"]) == (503, "2")
        assert never.headers["content-type"] == "application/problem+json"
        assert never.json()["code"] == "unavailable"
        with pytest.raises(httpx2.TransportError):
            await asked["/endless"]


@in_a_loop
async def test_nothing_is_kept_of_one_silent_client_when_the_next_is_told(monkeypatch):
    """An error that is raised again remembers where it was raised before, with all that was there."""
    monkeypatch.setattr(exchanges, "SILENT_SECONDS_MAX", 0.01)
    raised = []

    async def silent():
        await asyncio.Event().wait()

    async def reads(scope, receive, send):
        with pytest.raises(HttpProblem, match="too_slow") as found:
            await receive()
        raised.append(found.value)

    for _ in range(2):
        await exchanges.Exchanges(reads)({"type": "http"}, silent, silent)
    assert raised[0] is not raised[1]
