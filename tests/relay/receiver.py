"""A web server on loopback that takes webhooks, and answers what a test wants it to."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

PATIENCE = 30.0


@dataclass
class Post:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """What is answered."""

    status: int = 204
    headers: dict[str, str] | None = None
    body: bytes = b""
    is_mute: bool = False


class Receiver:
    """``answers`` are used up one by one; then all is well."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        """All that came, whatever was answered."""
        self.taken: list[Post] = []
        self.elsewhere = 0
        self.answers: deque[Reply] = deque()
        self.usual = Reply()
        self._news = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/secret-path"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/secret-path", self._take)
        app.router.add_route("*", "/elsewhere", self._went)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def posted(self, many: int) -> list[Post]:
        """All that came, when there is so much."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.posts) >= many)
        return self.posts

    async def took(self, many: int) -> list[Post]:
        """What was answered well, when there is so much."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.taken) >= many)
        return self.taken

    async def _take(self, request: web.Request) -> web.Response:
        post = Post(dict(request.headers), await request.read())
        reply = self.answers.popleft() if self.answers else self.usual
        async with self._news:
            self.posts.append(post)
            if reply.status < 300 and not reply.is_mute:
                self.taken.append(post)
            self._news.notify_all()
        if reply.is_mute:
            await asyncio.Event().wait()
        return web.Response(status=reply.status, headers=reply.headers, body=reply.body)

    async def _went(self, _: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()
