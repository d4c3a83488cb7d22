"""The least that answers the same request: uvicorn, FastAPI and `stages.pipeline` in one process, called directly.

It reads the user from Redis/Valkey, asks the stages for what a gateway asks them, luck and reasons included, and answers with the
customer's ids. What it leaves out is what a gateway is for:
deadlines and rungs, versions, experiments, the decision log, metrics. `python benchmarks/serving_bare.py HOME --port 8700`.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from random import getrandbits
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from serving_world import World

from tastemaker.home import Home
from tastemaker.stages.pipeline import Pipeline
from tastemaker.state.connection import connect_async, open_state, url_of
from tastemaker.state.keys import Keys
from tastemaker_services.gateway.answers import items_of
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.queries import query_of
from tastemaker_services.gateway.users import read_user
from tastemaker_services.web.bodies import json_response, parse
from tastemaker_services.web.schema import RecommendationRequest


def create(home: Home) -> FastAPI:
    """The application, with the champion of a home whose Valkey runs."""
    world = World(home, 0, 0, 0.0, {})
    settings, bundle = world.settings, world.bundle()
    keys = Keys(settings.catalogue, settings.state.partitions)
    client = connect_async(url_of(settings, home), text=False)
    pipeline, face = Pipeline.from_bundle(bundle), BundleFace.of(bundle)
    length = settings.state.history_length
    app = FastAPI()

    @app.post("/v1/recommendations")
    async def recommend(request: Request) -> Response:
        asked = await parse(request, RecommendationRequest)
        times = [time.perf_counter()]
        user = await read_user(client, keys, asked.user_id)
        now_ms = time.time_ns() // 1_000_000
        query = query_of(asked, user, face, settings.catalogue, history_length=length, now_ms=now_ms)
        query = replace(query, seed=getrandbits(60), explore=True)  # as a gateway's
        times.append(time.perf_counter())
        retrieved = pipeline.retrieve([query])
        times.append(time.perf_counter())
        ranked = pipeline.rank([query], retrieved)
        times.append(time.perf_counter())
        [slate] = pipeline.finish([query], pipeline.rerank([query], ranked))
        slate = pipeline.because(query, slate)
        times.append(time.perf_counter())
        answer: dict[str, Any] = {
            "items": items_of(face, slate, "popular now"),
            "degraded": [],
            "timings_ms": timings_ms(times),
        }
        return json_response(answer, 200)

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def timings_ms(times: list[float]) -> dict[str, float]:
    """As a gateway tells them."""
    names = ("history", "retrieve", "rank", "rerank")
    spans = zip(names, times[:-1], times[1:], strict=True)
    found = {name: 1000 * (end - start) for name, start, end in spans}
    return found | {"total": 1000 * (times[-1] - times[0])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("home", type=Path)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    home = Home.open(asked.home)
    world = World(home, 0, 0, 0.0, {})
    with open_state(world.settings, home):
        uvicorn.run(create(home), host="127.0.0.1", port=asked.port, log_level="warning")


if __name__ == "__main__":
    main()
