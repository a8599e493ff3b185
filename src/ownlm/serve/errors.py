"""Errors over HTTP: the OpenAI error object with the right status, whatever went wrong."""

from __future__ import annotations

import logging
from difflib import get_close_matches
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ownlm.runtime.errors import ContextOverflow, ModelNotFound, OwnLMError
from ownlm.serve.schemas import ChatRequest, CompletionRequest, field_path
from ownlm.serve.turns import ServerBusy

log = logging.getLogger(__name__)

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def error_object(status: int, message: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`"""
    kind = "server_error" if status >= 500 else TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def describe(error: BaseException, path: str = "") -> tuple[int, dict[str, Any]]:
    """Status and error object of anything that was raised; what we did not expect is not told in detail.

    `path` is the request's: a prompt that is too long lies in `prompt` or in `messages`.
    """
    if not isinstance(error, OwnLMError):
        message = f"Something unexpected happened ({type(error).__name__}); the server's log tells more."
        return 500, error_object(500, message, "internal_error")
    param = getattr(error, "name", None)
    if isinstance(error, ModelNotFound):
        param = "model"
    elif isinstance(error, ContextOverflow):
        param = "messages" if path.endswith("/chat/completions") else "prompt"
    return error.http_status, error_object(error.http_status, str(error), error.code, param)


def response_to(error: BaseException, path: str = "") -> JSONResponse:
    """The answer to a request that failed."""
    status, body = describe(error, path)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, ServerBusy) else None
    return JSONResponse(body, status, headers)


def validation_problem(errors: list[Any]) -> tuple[str, str, str | None]:
    """The message, code and field of the first of pydantic's findings."""
    # A value that fits no branch of a union is reported once a branch; the shortest path is the field itself.
    first = errors[0]
    param = field_path(first.get("loc", ())) or None
    if first.get("type") == "json_invalid":
        return "The request's body is not JSON.", "invalid_json", None
    if first.get("type") == "extra_forbidden":
        known = sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields})
        nearest = get_close_matches(str(param), known, n=1)
        hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
        return f"Unknown field: {param}.{hint}", "unknown_parameter", param
    if first.get("type") == "missing":
        where = param or "the body"
        return f"Missing: {where}.", "missing_required_parameter", param
    wanted = " or ".join(dict.fromkeys(str(each.get("msg", "")) for each in errors if _same(each, param)))
    return f"{param or 'The body'}: {wanted}.", "invalid_value", param


def _same(error: Any, param: str | None) -> bool:
    return (field_path(error.get("loc", ())) or None) == param


def install(app: FastAPI) -> None:
    """Makes every failure of the app an error object."""

    @app.exception_handler(OwnLMError)
    async def refused(request: Request, error: OwnLMError) -> JSONResponse:
        return response_to(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        message, code, param = validation_problem(list(error.errors()))
        return JSONResponse(error_object(400, message, code, param), 400)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        sentences = {
            404: f"There is nothing at {request.url.path}.",
            405: f"{request.method} is not allowed at {request.url.path}.",
        }
        message = sentences.get(error.status_code, str(error.detail))
        return JSONResponse(error_object(error.status_code, message, None), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return response_to(error)
