"""A study of a small recipe and the record of its trials, written without one."""

from tastemaker.config import Settings
from tastemaker_training.plan.recipe import read_recipe, search_space
from tastemaker_training.studies.study import (
    EventLog,
    Study,
    new_folder,
)


def tuner():
    """Imported late: it imports Ray, whose settings the integration tests of this process have yet to make."""
    from tastemaker_training.studies import tuner

    return tuner


RATE, DIM = "two_tower.fit.optimizer.table_learning_rate", "two_tower.model.dim"
RECIPE = """
pipeline: {retrieval: {sources: [{name: popular, quota: 10}]}}
two_tower:
  model: {dim: {default: 16, search: [8, 16]}}
  fit: {epochs: 4, optimizer: {table_learning_rate: {default: 0.1, search: {low: 0.01, high: 1.0, log: true}}}}
tune: {reduction_factor: 2}
"""


def begun(home):
    recipe, spaces = read_recipe("small.yaml"), search_space("small.yaml")
    folder = new_folder(home, Settings(home=home.root), recipe)
    found = Study(folder, "two_tower", recipe, spaces, "validation_ndcg@10", "f" * 64, "run")
    found.save()
    return found


def record(study, number, ndcg, outcome="completed", reason=None, rate=0.1):
    """One trial in the study's events, with an epoch for each value of `ndcg`."""
    log = EventLog(study.folder)
    log.append(number, "start", values={DIM: 16, RATE: rate})
    best = None
    for epoch, value in enumerate(ndcg, 1):
        best = value if best is None else max(best, value)
        log.append(number, "report", numbers={"epoch": epoch, "validation_ndcg@10": value}, score=best)
    if outcome != "running":
        log.append(number, "end", outcome=outcome, reason=reason)
