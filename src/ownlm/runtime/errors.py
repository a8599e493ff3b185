"""The errors that people see: one sentence each, with an exit code for the shell and a status for HTTP."""

from __future__ import annotations


class OwnLMError(Exception):
    """A mistake or a condition that the user can act on.

    The message is one sentence (or two) that names the file, line or field, what is wrong and what to do. The command
    line prints it without a traceback and exits with `exit_code`; the HTTP server answers with `http_status`.
    """

    exit_code = 2
    http_status = 400
    code = "invalid_request"


class ModelNotFound(OwnLMError):
    """MODEL names nothing that exists; the message lists what there is."""

    http_status = 404
    code = "model_not_found"


class ArtifactNotFound(OwnLMError):
    """No artifact has this name or id; the message lists what there is."""

    http_status = 404
    code = "artifact_not_found"


class ArtifactDamaged(OwnLMError):
    """A file of an artifact is missing, cut short or changed since it was written."""

    http_status = 500
    code = "artifact_damaged"


class ArtifactBusy(OwnLMError):
    """Another process is building this artifact at the moment."""

    http_status = 409
    code = "artifact_busy"


class CorpusError(OwnLMError):
    """There is nothing (readable) to learn from."""

    code = "corpus_error"


class RecipeError(OwnLMError):
    """A recipe file that cannot be understood; the message names file, line and key."""

    code = "recipe_error"


class BudgetError(OwnLMError):
    """The time or memory given is too small for anything useful."""

    code = "budget_too_small"


class DiskFull(OwnLMError):
    """There is no room left where the workspace lies; what was complete is kept."""

    http_status = 507
    code = "disk_full"


class ContextOverflow(OwnLMError):
    """A prompt that does not fit the model's context; prompts are never cut silently."""

    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int, context: int, requested: int = 0) -> None:
        self.prompt_tokens = prompt_tokens
        self.context = context
        self.requested = requested
        asked = f" and {requested} more were asked for" if requested else ""
        super().__init__(
            f"The prompt has {prompt_tokens} tokens{asked}, but this model's context holds {context}. "
            "Shorten the prompt or ask for fewer tokens."
        )


class UnsupportedParameter(OwnLMError):
    """A sampling or request parameter that this engine does not honour: refused, never ignored."""

    code = "unsupported_parameter"

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


class PortInUse(OwnLMError):
    """The port asked for is taken."""

    code = "port_in_use"


class NumericalError(OwnLMError):
    """Training met non-finite numbers too often to go on."""

    http_status = 500
    code = "numerical_error"


class Interrupted(BaseException):
    """Ctrl-C (130) or SIGTERM (143), raised once everything worth keeping has been saved.

    Not an `Exception`, so that no `except Exception` between the save and the shell swallows it.
    """

    def __init__(self, exit_code: int, message: str) -> None:
        self.exit_code = exit_code
        super().__init__(message)
