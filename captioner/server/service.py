"""What all dialects share: the model, its name, and the way from a request's pictures to answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.exceptions import HTTPException
from starlette.types import Scope

from captioner.errors import CaptionerError, OptionError, one_line
from captioner.inference.captioner import Captioner
from captioner.inference.results import Caption
from captioner.machine import available_cpus
from captioner.network.header import shipped_checkpoints, title_of
from captioner.options import DecodeOptions, ServeOptions
from captioner.server.batches import Batches, Captions, Writer
from captioner.server.messages import NO_STEERING, TAGS, Picture, as_json, begin_with

_FETCHERS = 8  # threads that wait for other servers
_ALIAS = "captioner"  # a name by which every model can be asked for


@dataclass(frozen=True)
class Answer:
    """What a dialect answers: a text for each caption that was asked for, and what is to be said about it."""

    texts: list[str]
    tokens: int
    about: dict[str, Any]


class Service:
    """A model that answers requests, with the options that hold where a request gives none."""

    def __init__(
        self,
        model: Captioner,
        options: DecodeOptions | None = None,
        prompt: str = "",
        limits: ServeOptions | None = None,
        folder: Path | None = None,
    ) -> None:
        self.model, self.options, self.prompt = model, options or DecodeOptions(), prompt
        self.limits, self.folder = limits or ServeOptions(), folder
        model.rules(self.options, prompt)  # what it cannot obey is refused before it listens
        shipped = {path: name for name, path in shipped_checkpoints().items()}
        self.name = (shipped.get(model.path) or title_of(model.path)) if model.path else _ALIAS
        self.answered = 0  # requests
        self.metrics = CollectorRegistry()
        ProcessCollector(registry=self.metrics)
        counted: dict[str, Any] = {"registry": self.metrics, "namespace": "captioner"}
        self.requests = Counter("requests", "requests that were answered", ("path", "status"), **counted)
        self.seconds = Histogram("request_seconds", "from a request's first byte to the answer's last", **counted)
        self.working = Gauge("working", "requests that are being answered", **counted)
        self.pictures = Counter("pictures", "pictures that were captioned or scored", **counted)
        self.failures = Counter("failed_pictures", "pictures that could not be read", **counted)
        sizes = (1, 2, 4, 8, 16, 32)
        size = Histogram("batch_pictures", "pictures that were encoded together", buckets=sizes, **counted)
        self.batches = Batches(model, self.limits.wait_ms / 1000, seen=size.observe)
        # Pictures are read apart from each other: a broken or a large one delays no other request.
        self._readers = ThreadPoolExecutor(max(4, available_cpus()))
        self._fetchers = ThreadPoolExecutor(_FETCHERS)

    def close(self) -> None:
        """End the threads, after what they have begun."""
        self._readers.shutdown()
        self._fetchers.shutdown(cancel_futures=True)
        self.batches.close()

    def count(self, scope: Scope, status: int, seconds: float | None) -> None:
        """Count a request that was answered; of those with pictures or questions, the seconds too."""
        self.answered += 1
        self.requests.labels(getattr(scope.get("route"), "path", "none"), status).inc()
        if seconds is not None:
            self.seconds.observe(seconds)

    def check_model(self, name: object) -> None:
        """Raise 404 unless a model of this name is here; `:latest` may follow."""
        if not isinstance(name, str) or name.removesuffix(":latest") not in (self.name, _ALIAS):
            raise HTTPException(404, f"model {one_line(name)!r} not found: this server has {self.name!r}")

    def check_number(self, pictures: int) -> None:
        """Raise OptionError for a request without pictures, 413 for one with too many."""
        if not pictures:
            raise OptionError("no picture in the request: this model describes pictures, and cannot chat")
        if pictures > self.limits.max_pictures:
            raise HTTPException(413, f"{pictures} pictures are more than the {self.limits.max_pictures} of a request")

    async def ask(self, pictures: Sequence[Picture], writer: Writer) -> list[Any]:
        """What `writer` makes of each picture, or the ImageError that says why there is nothing."""
        self.check_number(len(pictures))
        loop = asyncio.get_running_loop()

        async def one(picture: Picture) -> Any:
            try:
                if picture.is_far:
                    content = await loop.run_in_executor(self._fetchers, picture.read)
                    picture = replace(picture, read=lambda: content)
                self.batches.coming(1)
                answer = await loop.run_in_executor(self._readers, self._begun, picture, writer)
                found = await asyncio.wrap_future(answer)
            except CaptionerError as error:
                self.failures.inc()
                return error
            self.pictures.inc()
            return found

        return await asyncio.gather(*map(one, pictures))

    def _begun(self, picture: Picture, writer: Writer) -> Future[Any]:
        try:
            most = round(self.limits.max_megapixels * 1e6)
            pixels = self.model.preprocess.read(picture.read(), picture.name, most)
            return self.batches.submit(pixels, writer)
        finally:
            self.batches.coming(-1)

    async def answer(self, pictures: Sequence[Picture], prompt: str, schema: object = None, number: int = 1) -> Answer:
        """The captions of a chat's pictures: `number` texts, each with a line for each picture.

        With a `schema`, or "json" in its place, the texts are JSON. Raises the error of the first picture that has one.
        """
        options, words = self.options, begin_with(prompt) or self.prompt
        if schema and not options.tags and self.model.config.words:  # not every checkpoint knows tags
            options = replace(options, tags=TAGS)
        if number > 1:
            options = replace(options, num_captions=number, beam_size=max(number, options.beam_size))
        self.model.rules(options, words)
        captions: list[Caption] = await self.ask(pictures, Captions(options, words))
        for found in captions:
            if isinstance(found, CaptionerError):
                raise found
        columns = zip(*((found, *found.alternatives) for found in captions), strict=True)
        texts = ["\n".join(as_json(one, schema) if schema else one.text for one in column) for column in columns]
        rows = [replace(found, alternatives=()).to_dict() for found in captions]
        about: dict[str, Any] = {"pictures": rows, "note": NO_STEERING} if prompt else {"pictures": rows}
        if words:
            about["begin_with"] = words
        return Answer(texts, sum(len(found.tokens) for found in captions), about)
