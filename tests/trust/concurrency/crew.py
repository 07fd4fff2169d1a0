"""Schedules of the crew's threads: drawn at random, and with few preemptions."""

from __future__ import annotations

from trust.check import Check, Outcome, Task
from trust.concurrency.scheduler import Scheduler, Stuck, at_random, preempting
from trust.concurrency.world import FILES, Plan, World

PREEMPTIONS = 3  # at most, in a schedule that is mostly in order
OFTEN = (0.02, 0.1, 0.5)  # shares of points at which a random schedule switches
EARLY = (0.0, 0.0, 0.01)  # shares of points at which a wait may time out


def random_schedules(task: Task) -> Outcome:
    """Switch threads at random, at operations or also at lines."""
    outcome = Outcome()
    points = 0
    for index in range(task.tries):
        rng = task.random(index)
        plan = Plan.draw(rng)
        policy = at_random(rng, rng.choice(OFTEN))
        scheduler = Scheduler(policy, FILES if rng.random() < 0.5 else (), rng.choice(EARLY), index)
        points += attempt(plan, scheduler, f"seed {task.seed}, schedule {index}", outcome)
    outcome.figures["points"] = points
    return outcome


def bounded_schedules(task: Task) -> Outcome:
    """Run threads in order except for one to three preemptions, at any line."""
    outcome, plan, length, points = Outcome(), None, 0, 0
    for index in range(task.tries):
        rng = task.random(index)
        if plan is None or index % 50 == 0:
            plan = Plan.draw(rng)
            measure = Scheduler(preempting({}, lambda: 0.0), FILES)
            length = attempt(plan, measure, f"schedule {index} without preemption", outcome)
        places = rng.sample(range(1, length + 2), min(rng.randint(1, PREEMPTIONS), length))
        switches = {place: rng.randrange(6) for place in places}
        scheduler = Scheduler(preempting(switches, rng.random), FILES)
        name = f"seed {task.seed}, schedule {index}, preempted at {sorted(switches)}"
        points += attempt(plan, scheduler, name, outcome)
    outcome.figures["points"] = points
    return outcome


def attempt(plan: Plan, scheduler: Scheduler, name: str, outcome: Outcome) -> int:
    """Try one schedule; return the number of points at which threads could have switched."""
    world = World(plan, scheduler)
    outcome.tried(plan.end)
    try:
        world.run()
    except Stuck as stuck:
        outcome.failed(f"deadlock: {stuck} ({name}: {plan})")
    except Exception as error:
        outcome.failed(f"{type(error).__name__}: {error} ({name}: {plan})")
    if world.broken:
        outcome.failed(f"{world.broken[0]} ({name}: {plan})")
        outcome.lost += world.lost
        outcome.repeated += world.repeated
    return scheduler.points


def systematic(task: Task) -> Outcome:
    """Try plans with every single preemption, or as many of them as there are tries."""
    outcome, rng, points = Outcome(), task.random(0), 0
    while outcome.tries < task.tries:
        plan = Plan.draw(rng)
        measure = Scheduler(preempting({}, lambda: 0.0), FILES)
        length = attempt(plan, measure, "without preemption", outcome)
        places = [(at, to) for at in range(1, length + 1) for to in range(plan.workers + 1)]
        for at, to in rng.sample(places, min(len(places), task.tries - outcome.tries)):
            scheduler = Scheduler(preempting({at: to}, lambda: 0.0), FILES)
            points += attempt(plan, scheduler, f"preempted at {at} for {to}", outcome)
        task.note(f"{outcome.tries:,} schedules")
    outcome.figures["points"] = points
    return outcome


CHECKS = (
    Check(
        "crew-random", "threads of an iteration in random orders, ended in six ways",
        random_schedules, short=60, standard=6000, long=200_000, seconds=100, needs=("triton",),
    ),
    Check(
        "crew-bounded", "the same in order, but for one to three preemptions at any lines",
        bounded_schedules, short=40, standard=3000, long=100_000, seconds=60, needs=("triton",),
    ),
    Check(
        "crew-systematic", "the same in order, but for one preemption at every line",
        systematic, short=20, standard=2000, long=100_000, seconds=40, needs=("triton",),
    ),
)  # fmt: skip
