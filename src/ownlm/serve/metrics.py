"""Counters and durations for Prometheus, in a registry of their own. Labels are served names and fixed words only."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What `/metrics` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ownlm_requests", "Answered requests", ["endpoint", "status"], registry=self.registry
        )  # fmt: skip
        self.prompt_tokens = Counter("ownlm_prompt_tokens", "Tokens read", ["model"], registry=self.registry)
        self.completion_tokens = Counter(
            "ownlm_completion_tokens", "Tokens written", ["model"], registry=self.registry
        )  # fmt: skip
        self.first_token = Histogram(
            "ownlm_time_to_first_token_seconds", "From the request to the first piece of its answer, waiting included",
            ["model"], buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.duration = Histogram(
            "ownlm_request_seconds", "From the request to the end of its answer",
            ["model"], buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.waiting = Gauge("ownlm_waiting_requests", "Requests in line", ["model"], registry=self.registry)
        self.cancelled = Counter(
            "ownlm_cancelled_requests", "Requests whose reader left", ["model"], registry=self.registry
        )  # fmt: skip
        self.unlike_training = Counter(
            "ownlm_prompts_unlike_training", "Prompts far above the held-out bits per byte",
            ["model"], registry=self.registry,
        )  # fmt: skip
        self.feedback = Counter("ownlm_feedback", "Verdicts received", ["kind"], registry=self.registry)

    def text(self, waiting: dict[str, int]) -> bytes:
        """The Prometheus text format."""
        for model, count in waiting.items():
            self.waiting.labels(model).set(count)
        return generate_latest(self.registry)
