"""Drives a fake of OpenAI's API with OpenAI's own SDK.

Called with the fake's address and key. The name of the model that is asked for
says what the fake does. Prints "ok" if all of it came as it should.
"""

import json
import sys

import openai

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "execute",
            "description": "Runs a command.",
            "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
        },
    }
]
GO = {"role": "user", "content": "go"}

base_url, key = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=2)


def stream(model, messages=[GO], client=client, **more):
    return client.chat.completions.create(
        model=model,
        messages=messages,
        max_completion_tokens=100,
        stream=True,
        stream_options={"include_usage": True},
        **more,
    )


def run(model, messages=[GO], client=client, **more):
    """All text of an answer."""
    chunks = stream(model, messages, client, **more)
    return "".join(
        choice.delta.content or "" for chunk in chunks for choice in chunk.choices
    )


def fails(kind, says, call):
    try:
        call()
    except kind as error:
        assert says in str(error), error
        return error
    raise AssertionError(f"no {kind}")


def text():
    chunks = list(stream("text"))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    assert "".join(piece or "" for piece in pieces) == "Zażółć gęślą jaźń 🦀, said the fake.", pieces
    assert chunks[-2].choices[0].finish_reason == "stop", chunks[-2]
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (60, 7), usage
    assert usage.prompt_tokens_details.cached_tokens == 20, usage


def in_tiny_pieces():
    assert run("slowly") == "Zażółć gęślą jaźń 🦀"


def at_once():
    answer = client.chat.completions.create(model="text", messages=[GO])
    assert answer.choices[0].message.content.startswith("Zażółć"), answer


def tools():
    with client.chat.completions.stream(model="tools", messages=[GO], tools=TOOLS) as answer:
        for _ in answer:
            pass
        choice = answer.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls", choice
    assert choice.message.content == "I look.", choice
    calls = choice.message.tool_calls
    arguments = [json.loads(call.function.arguments) for call in calls]
    assert arguments == [{"command": "ls"}, {"command": "pwd"}], arguments
    said = {
        "role": "assistant",
        "content": choice.message.content,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in calls
        ],
    }
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"result {at}"}
        for at, call in enumerate(calls)
    ]
    assert run("tools", [GO, said, *results], tools=TOOLS) == "result 0, result 1"
    # Half of the results, and results of nothing.
    bad = openai.BadRequestError
    fails(bad, "did not have response messages", lambda: run("tools", [GO, said, results[0], GO]))
    fails(bad, "must be a response", lambda: run("tools", [GO, results[0]]))


def errors():
    assert run("limited") == "after a wait"
    patient = client.with_options(max_retries=0)
    error = fails(openai.RateLimitError, "rate limit", lambda: run("always-limited", client=patient))
    assert error.code == "rate_limit_exceeded", error
    assert error.response.headers["retry-after"] == "7", error.response.headers
    stranger = openai.OpenAI(base_url=base_url, api_key="sk-wrong-key", max_retries=0)
    fails(openai.AuthenticationError, "Incorrect API key", lambda: run("text", client=stranger))
    error = fails(openai.NotFoundError, "does not exist", lambda: run("missing"))
    assert error.code == "model_not_found", error
    fails(openai.APIError, "Overloaded", lambda: run("overloaded-in-between"))
    # The SDK lets its HTTP library's own error through, whichever that is.
    error = fails(Exception, "", lambda: run("cut"))
    assert not isinstance(error, (AssertionError, openai.APIStatusError)), error


for check in (text, in_tiny_pieces, at_once, tools, errors):
    check()
print("ok")
