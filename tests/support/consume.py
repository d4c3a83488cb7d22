"""A stream consumer as a process of its own, which goes on through whatever befalls the server: HOME CATALOGUE SECONDS."""

import sys
import time
from pathlib import Path

from tastemaker.config import Settings
from tastemaker.errors import StateError
from tastemaker.events.consumer import StreamConsumer
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.features.stream import StreamFeatures
from tastemaker.home import Home
from tastemaker.state.connection import connect, url_of
from tastemaker.state.keys import Keys


def main(root: str, catalogue: str, lease_seconds: str) -> None:
    home = Home.open(Path(root))
    settings = Settings(home=home.root, catalogue=catalogue)
    client = connect(url_of(settings, home))
    keys = Keys(catalogue, settings.state.partitions)
    rewards, effects = RewardJoiner(client, keys), StreamFeatures(client, keys, home)
    consumer = StreamConsumer(client, keys, home, settings, rewards, effects, float(lease_seconds))
    while True:
        try:
            step = consumer.step()
            time.sleep(0.0 if step.behind else 0.02)
        except StateError:
            time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
